// Sequences: so many literals, then a match of that length at that offset. They are decoded with the tables that
// sequence-tables.as.ts made, and carried out at once. Of the block around them, and of how the literals came to be where they
// are, nothing is known here.

import { ahead, opening } from './bits.as';
import { LITERALS, LL_TABLE, ML_TABLE, OF_TABLE, SLOW } from './places.as';
import { BAD_DATA, TOO_MUCH } from './results.as';
import { llLog, mlLog, ofLog } from './sequence-tables.as';

// How far behind a match one may write.
export const SPILL: usize = 48;

// The offsets used last; they last from block to block of a frame.
let rep1: u32 = 0;
let rep2: u32 = 0;
let rep3: u32 = 0;

// How far the literals were used: a result of sequences().
export let literalsUsed: usize = 0;

// A frame begins.
export function forgetOffsets(): void {
  rep1 = 1;
  rep2 = 4;
  rep3 = 8;
}

// Reads a sequence of more bits than sequences() can at a time. Returns the new position (below start: bad data).
export function slow(position: u64, start: u64, ll: usize, ml: usize, oo: usize): u64 {
  let n: u64 = <u64>(load<u8>(oo, OF_TABLE + 4) + 1 - load<u8>(oo, OF_TABLE + 5));
  store<u32>(SLOW, load<u32>(oo, OF_TABLE) + <u32>(ahead(position) >> 1 >> (63 - n)));
  position -= n;
  if (position < start) return 0;
  n = load<u8>(ml, ML_TABLE + 3);
  store<u32>(SLOW, (<u32>load<u8>(ml, ML_TABLE + 2) << <u32>n) + <u32>(ahead(position) >> 1 >> (63 - n)), 4);
  position -= n;
  if (position < start) return 0;
  n = load<u8>(ll, LL_TABLE + 3);
  store<u32>(SLOW, (<u32>load<u8>(ll, LL_TABLE + 2) << <u32>n) + <u32>(ahead(position) >> 1 >> (63 - n)), 8);
  position -= n;
  if (position < start) return 0;
  n = load<u8>(ll, LL_TABLE + 1) + load<u8>(ml, ML_TABLE + 1) + load<u8>(oo, OF_TABLE + 5) - 1;
  const w = ahead(position) >> 1 >> (63 - n);
  store<u32>(SLOW, (<u32>(w << 4) & load<u16>(oo, OF_TABLE + 6)) + load<u16>(oo, OF_TABLE + 8), 12);
  n = load<u8>(oo, OF_TABLE + 5) - 1;
  store<u32>(SLOW, (<u32>(w >> n << 3) & load<u16>(ml, ML_TABLE + 4)) + load<u16>(ml, ML_TABLE + 6), 16);
  n += load<u8>(ml, ML_TABLE + 1);
  store<u32>(SLOW, (<u32>(w >> n << 3) & load<u16>(ll, LL_TABLE + 4)) + load<u16>(ll, LL_TABLE + 6), 20);
  return position - n - load<u8>(ll, LL_TABLE + 1);
}

// Carries out a sequence byte by byte.
export function careful(out: usize, from: usize, outMatch: usize, offset: usize, outNext: usize): void {
  while (out < outMatch) store<u8>(out++, load<u8>(from++));
  while (out < outNext) {
    store<u8>(out, load<u8>(out - offset));
    out++;
  }
}

// Copies what stands dist < 16 before `to`, up to `stop` and up to 15 bytes beyond it.
export function copyNear(to: usize, dist: usize, stop: usize): void {
  let from = to - dist;
  if (dist >= 8) {
    do {
      store<u64>(to, load<u64>(from));
      store<u64>(to, load<u64>(from, 8), 8);
      to += 16;
      from += 16;
    } while (to < stop);
  } else if (dist == 1) {
    const run = <u64>load<u8>(from) * 0x0101010101010101;
    do {
      store<u64>(to, run);
      store<u64>(to, run, 8);
      to += 16;
    } while (to < stop);
  } else {
    do {
      store<u64>(to, load<u64>(from));
      to += dist;
      from += dist;
    } while (to < stop);
  }
}

// Copies more than 16 literals: the first 16 are done.
export function copyMore(to: usize, from: usize, stop: usize): void {
  do {
    to += 16;
    from += 16;
    v128.store(to, v128.load(from));
  } while (to + 16 < stop);
}

// Decodes `count` sequences from [p, end) and carries them out, with literals from LITERALS on: how far it went there
// is in `literalsUsed`; it may be too far, but not out of the buffer, as the output would be too long first.
// Returns the number of bytes, or a negative code. Up to `fast` one may write 48 bytes beyond.
export function sequences(p: usize, end: usize, count: i32, out: usize, hard: usize, fast: usize, origin: usize, far: u32): i32 {
  let position = opening(p, end);
  if (position == 0) return BAD_DATA;
  const start = <u64>p << 3;
  const logs = llLog + ofLog + mlLog;
  if (position < start + logs) return BAD_DATA;
  let c = ahead(position);
  position -= logs;
  c >>= 1;
  let ll = <usize>(c >> (63 - llLog)) << 3;
  c = (c << llLog) & 0x7fffffffffffffff;
  let oo = <usize>(c >> (63 - ofLog)) << 4;
  c = (c << ofLog) & 0x7fffffffffffffff;
  let ml = <usize>(c >> (63 - mlLog)) << 3;

  let r1 = rep1;
  let r2 = rep2;
  let r3 = rep3;
  const outStart = out;
  let from: usize = LITERALS;
  for (;;) {
    let literals: u32;
    let length: u32;
    let value: u32;
    let nextL: u32;
    let nextM: u32;
    let nextO: u32;
    if (position < start) return BAD_DATA;
    const total = <u64>(load<u8>(ll, LL_TABLE) + load<u8>(ml, ML_TABLE) + load<u8>(oo, OF_TABLE + 4));
    if (total <= 53) {
      // Bits 0-3 mean nothing; from bit 4 on come the bits of the next states, then those of the values.
      let w = load<u64>(<usize>((position - 57) >> 3)) >> (position - total - 4 - ((position - 57) & ~7));
      position -= total;
      nextO = (<u32>w & load<u16>(oo, OF_TABLE + 6)) + load<u16>(oo, OF_TABLE + 8);
      w >>= <u64>load<u8>(oo, OF_TABLE + 5);
      nextM = (<u32>w & load<u16>(ml, ML_TABLE + 4)) + load<u16>(ml, ML_TABLE + 6);
      w >>= <u64>load<u8>(ml, ML_TABLE + 1);
      nextL = (<u32>w & load<u16>(ll, LL_TABLE + 4)) + load<u16>(ll, LL_TABLE + 6);
      w >>= <u64>load<u8>(ll, LL_TABLE + 1);
      w >>= 3;
      literals = load<u8>(ll, LL_TABLE + 2);
      length = load<u8>(ml, ML_TABLE + 2);
      const n = <u32>load<u8>(ll, LL_TABLE + 3);
      const k = <u32>load<u8>(ml, ML_TABLE + 3);
      if (n) {
        literals = (literals << n) + (<u32>w & ((1 << n) - 1));
        w >>= <u64>n;
      }
      if (k) {
        length = (length << k) + (<u32>w & ((1 << k) - 1));
        w >>= <u64>k;
      }
      value = load<u32>(oo, OF_TABLE);
      value += <u32>w & (value - 1);
    } else {
      position = slow(position, start, ll, ml, oo);
      value = load<u32>(SLOW);
      length = load<u32>(SLOW, 4);
      literals = load<u32>(SLOW, 8);
      nextO = load<u32>(SLOW, 12);
      nextM = load<u32>(SLOW, 16);
      nextL = load<u32>(SLOW, 20);
    }

    // Without branches: they would be guessed wrong too often.
    const turn = value + <u32>(literals == 0);
    const repeated = value <= 3;
    let offset = select<u32>(r1, r2, turn == 1);
    offset = select<u32>(offset, r3, turn < 3);
    offset = select<u32>(offset, r1 - 1, turn < 4);
    offset = select<u32>(offset, value - 3, repeated);
    r3 = select<u32>(r3, r2, turn < 3);
    r2 = select<u32>(r2, r1, turn < 2);
    r1 = offset;

    const outMatch = out + literals;
    const outNext = outMatch + length + 3;
    if (<usize>(offset - 1) >= outMatch - origin) return BAD_DATA;
    if (offset > far) return BAD_DATA;
    if (outNext <= fast) {
      v128.store(out, v128.load(from));
      if (literals > 16) copyMore(out, from, outMatch);
      out = outMatch;
      if (offset >= 16) {
        let at = out - offset;
        v128.store(out, v128.load(at));
        v128.store(out, v128.load(at, 16), 16);
        if (length > 29) {
          do {
            at += 32;
            out += 32;
            v128.store(out, v128.load(at));
            v128.store(out, v128.load(at, 16), 16);
          } while (out + 32 < outNext);
        }
      } else copyNear(out, offset, outNext);
    } else {
      if (outNext > hard) return TOO_MUCH;
      careful(out, from, outMatch, offset, outNext);
    }
    out = outNext;
    from += literals;
    if (--count == 0) break;
    ll = nextL;
    ml = nextM;
    oo = nextO;
  }
  // The last sequence has no next states.
  if (position + load<u8>(ll, LL_TABLE + 1) + load<u8>(ml, ML_TABLE + 1) + load<u8>(oo, OF_TABLE + 5) - 1 != start) return BAD_DATA;
  rep1 = r1;
  rep2 = r2;
  rep3 = r3;
  literalsUsed = from;
  return <i32>(out - outStart);
}
