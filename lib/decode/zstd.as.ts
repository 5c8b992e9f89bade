// Zstandard frames (RFC 8878) from one place of linear memory into another. Written in AssemblyScript: this file and those in
// zstd/ are compiled to one WebAssembly module. Its tables lie at fixed places (zstd/places.as.ts), as nothing is ever allocated.
//
// decode(src, srcLen, dst, dstMax) reads [src, src+srcLen) and writes [dst, dst+dstMax), never outside. It decodes
// frames one after another until exactly dstMax bytes came out and returns that number, or a negative code.
//
// This file knows of frames and of the kinds of blocks in them; what is in a compressed block it leaves to zstd/blocks.as.ts.

import { block } from './zstd/blocks.as';
import { checksum } from './zstd/checksum.as';
import { forgetHuffman } from './zstd/literals.as';
import {
  BAD_CHECKSUM, BAD_DATA, NEEDS_DICTIONARY, NO_FRAME, OUT_OF_INPUT, TOO_MUCH, WINDOW_TOO_LARGE,
} from './zstd/results.as';
import { forgetTables } from './zstd/sequence-tables.as';
import { forgetOffsets } from './zstd/sequences.as';

// Exported only to be kept from being inlined: with the registers for itself its loop is much faster.
export { run } from './zstd/sequences.as';

const BLOCK_MAX: i32 = 0x20000;
const WINDOW_MAX: u64 = 0x8000000;

export function decode(src: usize, srcLen: i32, dst: usize, dstMax: i32): i32 {
  let p = src;
  const end = src + srcLen;
  let out = dst;
  const limit = dst + dstMax;
  while (out < limit) {
    if (end - p < 4) return OUT_OF_INPUT;
    const magic = load<u32>(p);
    if ((magic & 0xfffffff0) == 0x184d2a50) {
      if (end - p < 8) return OUT_OF_INPUT;
      const n = load<u32>(p, 4);
      p += 8;
      if (n > <u32>(end - p)) return OUT_OF_INPUT;
      p += n;
      continue;
    }
    if (magic != 0xfd2fb528) return NO_FRAME;

    // Frame header.
    if (end - p < 6) return OUT_OF_INPUT;
    const flags = <i32>load<u8>(p, 4);
    if (flags & 8) return BAD_DATA;
    p += 5;
    let window: u64 = 0;
    const single = (flags & 32) != 0;
    const idBytes = flags & 3 ? 1 << ((flags & 3) - 1) : 0;
    const sizeBytes = flags >> 6 ? 1 << (flags >> 6) : <i32>single;
    if (<i32>(end - p) < <i32>!single + idBytes + sizeBytes) return OUT_OF_INPUT;
    if (!single) {
      const w = <i32>load<u8>(p++);
      const base = <u64>1 << (10 + (w >> 3));
      window = base + (base >> 3) * <u64>(w & 7);
    }
    let id = 0;
    for (let i = 0; i < idBytes; i++) id |= <i32>load<u8>(p++);
    let size: u64 = 0;
    for (let i = 0; i < sizeBytes; i++) size |= <u64>load<u8>(p++) << (i << 3);
    if (sizeBytes == 2) size += 256;
    if (id) return NEEDS_DICTIONARY;
    if (single) window = size;
    else if (window > WINDOW_MAX) return WINDOW_TOO_LARGE;
    if (sizeBytes && size > <u64>(limit - out)) return TOO_MUCH;

    const blockMax = <i32>min<u64>(window, BLOCK_MAX);
    const far = <u32>min<u64>(window, 0xffffffff);
    const frameStart = out;
    forgetHuffman();
    forgetTables();
    forgetOffsets();
    let last: i32;
    do {
      if (end - p < 3) return OUT_OF_INPUT;
      const header = <i32>load<u16>(p) | (<i32>load<u8>(p, 2) << 16);
      p += 3;
      last = header & 1;
      const type = (header >> 1) & 3;
      const n = header >> 3;
      if (n > blockMax || type == 3) return BAD_DATA;
      if (type == 1) {
        if (p >= end) return OUT_OF_INPUT;
        if (<usize>n > limit - out) return TOO_MUCH;
        memory.fill(out, load<u8>(p++), n);
        out += n;
        continue;
      }
      if (<usize>n > end - p) return OUT_OF_INPUT;
      if (type == 0) {
        if (<usize>n > limit - out) return TOO_MUCH;
        memory.copy(out, p, n);
        out += n;
      } else {
        const r = block(p, p + n, out, limit, blockMax, frameStart, far);
        if (r < 0) return r;
        out += r;
      }
      p += n;
    } while (!last);
    if (sizeBytes && <u64>(out - frameStart) != size) return BAD_DATA;
    if (flags & 4) {
      if (end - p < 4) return OUT_OF_INPUT;
      if (load<u32>(p) != checksum(frameStart, out)) return BAD_CHECKSUM;
      p += 4;
    }
  }
  return <i32>(out - dst);
}
