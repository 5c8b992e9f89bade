// The first part of a compressed block: its literals, which are put together at LITERALS for the sequences to take them
// from. What sequences do with them is not known here.

import { opening } from './bits.as';
import { huffman4, huffmanTail } from './huffman-streams.as';
import { readHuffman } from './huffman-tree.as';
import { LITERALS } from './places.as';
import { BAD_DATA } from './results.as';

export let literalsEnd: usize = 0; // result of readLiterals
let haveHuffman: bool = false; // lasts from block to block of a frame

// A frame begins: there is no Huffman code of a block before.
export function forgetHuffman(): void {
  haveHuffman = false;
}

// Decodes the literals of a block [p, end); returns how many bytes of it they took, or BAD_DATA.
export function readLiterals(p: usize, end: usize, blockMax: i32): i32 {
  const start = p;
  const first = <i32>load<u8>(p);
  const format = (first >> 2) & 3;
  const type = first & 3;
  if (type < 2) {
    let size: i32;
    if (format == 1) {
      size = <i32>load<u16>(p) >> 4;
      p += 2;
    } else if (format == 3) {
      if (end - p < 3) return BAD_DATA;
      size = (<i32>load<u16>(p) >> 4) | (<i32>load<u8>(p, 2) << 12);
      p += 3;
    } else {
      size = first >> 3;
      p += 1;
    }
    if (size > blockMax) return BAD_DATA;
    if (type == 0) {
      if (size > <i32>(end - p)) return BAD_DATA;
      memory.copy(LITERALS, p, size);
      p += size;
      literalsEnd = LITERALS + size;
    } else {
      if (p >= end) return BAD_DATA;
      memory.fill(LITERALS, load<u8>(p++), size);
      literalsEnd = LITERALS + size;
    }
  } else {
    const header = format < 2 ? 3 : format + 2;
    if (end - p < <usize>header + 1) return BAD_DATA;
    const bits = <u64>load<u32>(p) | (header == 5 ? <u64>load<u8>(p, 4) << 32 : 0);
    const width = format < 2 ? 10 : format == 2 ? 14 : 18;
    const mask = (1 << width) - 1;
    const size = <i32>(bits >> 4) & mask;
    const packed = <i32>(bits >> (4 + width)) & mask;
    p += header;
    if (size > blockMax || packed > <i32>(end - p)) return BAD_DATA;
    const stop = p + packed;
    if (type == 2) {
      const n = readHuffman(p, stop);
      if (n < 0) return n;
      haveHuffman = true;
      p += n;
    } else if (!haveHuffman) return BAD_DATA;
    if (format == 0) {
      const position = opening(p, stop);
      if (position == 0 || !huffmanTail(position, p, LITERALS, LITERALS + size)) return BAD_DATA;
    } else {
      if (size < 6 || !huffman4(p, stop, size)) return BAD_DATA;
    }
    p = stop;
    literalsEnd = LITERALS + size;
  }
  return <i32>(p - start);
}
