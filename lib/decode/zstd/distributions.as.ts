// How often each symbol of an FSE code occurs, as a block says it, and which states of a table that gives to each symbol.
// What a symbol stands for, and what a state's entry looks like, is not known here.

import { BAD_DATA } from './results.as';
import { CELLS, NEXT, NORM } from './places.as';

// Results of readDistribution.
export let log: i32 = 0;
export let symbols: i32 = 0;

export function widen(from: usize, n: i32): void {
  for (let i = 0; i < n; i++) store<i16>(NORM + (<usize>i << 1), load<i8>(from + i));
}

// 32 bits (low first) at p, with zeros for what is beyond the end.
function peek32(p: usize, end: usize): u32 {
  if (p + 4 <= end) return load<u32>(p);
  let v: u32 = 0;
  for (let i = 0; p < end; p++, i += 8) v |= <u32>load<u8>(p) << i;
  return v;
}

// Reads the description of a distribution into NORM, `log` and `symbols`; returns its length in bytes, or BAD_DATA.
export function readDistribution(p: usize, end: usize, maxLog: i32, maxSymbols: i32): i32 {
  if (p >= end) return BAD_DATA;
  log = (load<u8>(p) & 15) + 5;
  if (log > maxLog) return BAD_DATA;
  let at = 4;
  let left = 1 << log;
  let n = 0;
  let present = 0;
  do {
    if (n >= maxSymbols) return BAD_DATA;
    let v = peek32(p + (at >> 3), end) >> (at & 7);
    const width = 32 - clz(left + 1);
    const half: u32 = 1 << (width - 1);
    const spare: u32 = (1 << width) - 2 - left;
    const low = v & (half - 1);
    if (low < spare) {
      v = low;
      at += width - 1;
    } else {
      v &= (half << 1) - 1;
      if (v >= half) v -= spare;
      at += width;
    }
    const probability = <i32>v - 1;
    store<i16>(NORM + (<usize>(n++) << 1), <i16>probability);
    if (probability) {
      left -= probability < 0 ? 1 : probability;
      present++;
      continue;
    }
    for (;;) {
      const flag = <i32>(peek32(p + (at >> 3), end) >> (at & 7)) & 3;
      at += 2;
      if (n + flag > maxSymbols) return BAD_DATA;
      for (let i = 0; i < flag; i++) store<i16>(NORM + (<usize>(n++) << 1), 0);
      if (flag != 3) break;
    }
  } while (left > 0);
  if (present < 2) return BAD_DATA;
  const bytes = (at + 7) >> 3;
  if (bytes > <i32>(end - p)) return BAD_DATA;
  symbols = n;
  return bytes;
}

// Spreads the symbols of NORM over the states: CELLS, and NEXT for numbering each symbol's states.
export function spread(tableLog: i32, n: i32): void {
  const size = 1 << tableLog;
  const mask = size - 1;
  let top = size;
  for (let s = 0; s < n; s++) {
    const c = load<i16>(NORM + (<usize>s << 1));
    if (c < 0) {
      store<u8>(CELLS + --top, s);
      store<u16>(NEXT + (<usize>s << 1), 1);
    } else {
      store<u16>(NEXT + (<usize>s << 1), c);
    }
  }
  const step = (size >> 1) + (size >> 3) + 3;
  let at = 0;
  for (let s = 0; s < n; s++) {
    for (let c = <i32>load<i16>(NORM + (<usize>s << 1)); c > 0; c--) {
      store<u8>(CELLS + at, s);
      do {
        at = (at + step) & mask;
      } while (at >= top);
    }
  }
}

// Numbers the states of a symbol one by one, in the order of the table.
// @ts-ignore: decorator
@inline export function number(s: usize): i32 {
  const x = <i32>load<u16>(NEXT + (s << 1));
  store<u16>(NEXT + (s << 1), x + 1);
  return x;
}
