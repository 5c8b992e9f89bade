// The Huffman code of a block's literals: its description, which gives a weight to each symbol, and the table made of that. How
// the coded streams lie in a block is not known here.
//
// The table has an entry for each 11 bits that may come next: how many of them are a code word, in HUF_BITS, and its symbol,
// in HUF_SYMBOLS. They are apart because the first can then be used as it is loaded, to shift by, and the second to be stored.

import { ahead, opening } from './bits.as';
import { log, number, readDistribution, spread, symbols } from './distributions.as';
import { CELLS, HUF_BITS, HUF_SYMBOLS, RANKS, WEIGHTS, WEIGHT_TABLE } from './places.as';
import { BAD_DATA } from './results.as';

let count: i32 = 0; // result of readWeights

// Reads the weights of all symbols but the last to WEIGHTS, and how many they are to `count`; returns the length in bytes, or
// BAD_DATA.
function readWeights(p: usize, end: usize): i32 {
  if (p >= end) return BAD_DATA;
  const header = <i32>load<u8>(p++);
  let n = 0;
  let used = 0;
  if (header >= 128) {
    n = header - 127;
    used = (n + 1) >> 1;
    if (used > <i32>(end - p)) return BAD_DATA;
    for (let i = 0; i < used; i++) {
      const b = <i32>load<u8>(p + i);
      store<u8>(WEIGHTS + (i << 1), b >> 4);
      store<u8>(WEIGHTS + (i << 1) + 1, b & 15);
    }
  } else {
    used = header;
    if (used > <i32>(end - p)) return BAD_DATA;
    const stop = p + used;
    const d = readDistribution(p, stop, 6, 12);
    if (d < 0) return d;
    const start = <u64>(p + d) << 3;
    let position = opening(p + d, stop);
    if (position == 0) return BAD_DATA;
    spread(log, symbols);
    const size = 1 << log;
    for (let i = 0; i < size; i++) {
      const s = <usize>load<u8>(CELLS + i);
      const x = number(s);
      const bits = log - 31 + clz(x);
      store<u32>(WEIGHT_TABLE + (<usize>i << 2), (((x << bits) - size) << 16) | (<i32>s << 8) | bits);
    }
    if (position < start + 2 * log) return BAD_DATA;
    let bits = ahead(position);
    let one = <i32>(bits >> (64 - log));
    let two = <i32>((bits << log) >> (64 - log));
    position -= 2 * log;
    for (;;) {
      if (n > 253) return BAD_DATA;
      let e = load<i32>(WEIGHT_TABLE + (<usize>one << 2));
      store<u8>(WEIGHTS + n++, e >> 8);
      let k = e & 255;
      if (position < start + k) {
        store<u8>(WEIGHTS + n++, load<i32>(WEIGHT_TABLE + (<usize>two << 2)) >> 8);
        break;
      }
      one = (e >> 16) + <i32>((ahead(position) >> 1) >> (63 - k));
      position -= k;
      e = load<i32>(WEIGHT_TABLE + (<usize>two << 2));
      store<u8>(WEIGHTS + n++, e >> 8);
      k = e & 255;
      if (position < start + k) {
        if (n > 254) return BAD_DATA;
        store<u8>(WEIGHTS + n++, load<i32>(WEIGHT_TABLE + (<usize>one << 2)) >> 8);
        break;
      }
      two = (e >> 16) + <i32>((ahead(position) >> 1) >> (63 - k));
      position -= k;
    }
  }
  count = n;
  return used + 1;
}

// Finds the last symbol's weight, and makes the table.
function buildTable(): bool {
  let n = count;
  for (let i = 0; i < 64; i += 8) store<u64>(RANKS + i, 0);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const w = <i32>load<u8>(WEIGHTS + i);
    if (w > 11) return false;
    const at = RANKS + (<usize>w << 2);
    store<i32>(at, load<i32>(at) + 1);
    sum += (1 << w) >> 1;
  }
  if (sum == 0) return false;
  const maxBits = 32 - clz(sum);
  if (maxBits > 11) return false;
  const rest = (1 << maxBits) - sum;
  if (rest & (rest - 1)) return false;
  const lastWeight = ctz(rest) + 1;
  store<u8>(WEIGHTS + n++, lastWeight);
  const lastRank = RANKS + (<usize>lastWeight << 2);
  store<i32>(lastRank, load<i32>(lastRank) + 1);
  if (load<i32>(RANKS + 4) < 2) return false;

  // From counts to places in the table.
  let at = 0;
  for (let w = 1; w <= maxBits; w++) {
    const c = load<i32>(RANKS + (<usize>w << 2));
    store<i32>(RANKS + (<usize>w << 2), at);
    at += c << (w - 1 + 11 - maxBits);
  }
  for (let i = 0; i < n; i++) {
    const w = <i32>load<u8>(WEIGHTS + i);
    if (w == 0) continue;
    const place = RANKS + (<usize>w << 2);
    let to = <usize>load<i32>(place);
    const bytes = 1 << (w - 1 + 11 - maxBits);
    store<i32>(place, <i32>to + bytes);
    const widths = <u64>(maxBits + 1 - w) * 0x0101010101010101;
    const letters = <u64>i * 0x0101010101010101;
    to += HUF_BITS;
    if (bytes == 1) {
      store<u8>(to, <u8>widths);
      store<u8>(to, <u8>letters, HUF_SYMBOLS - HUF_BITS);
    } else if (bytes == 2) {
      store<u16>(to, <u16>widths);
      store<u16>(to, <u16>letters, HUF_SYMBOLS - HUF_BITS);
    } else if (bytes == 4) {
      store<u32>(to, <u32>widths);
      store<u32>(to, <u32>letters, HUF_SYMBOLS - HUF_BITS);
    } else for (const stop = to + bytes; to < stop; to += 8) {
      store<u64>(to, widths);
      store<u64>(to, letters, HUF_SYMBOLS - HUF_BITS);
    }
  }
  return true;
}

// Reads a Huffman tree's description and makes the table of it; returns its length in bytes, or BAD_DATA.
export function readHuffman(p: usize, end: usize): i32 {
  const used = readWeights(p, end);
  if (used < 0) return used;
  return buildTable() ? used : BAD_DATA;
}
