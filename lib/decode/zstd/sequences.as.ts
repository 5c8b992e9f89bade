// Sequences: so many literals, then a match of that length at that offset. They are decoded with the tables that
// sequence-tables.as.ts made, and carried out at once. Of the block around them, and of how the literals came to be where they
// are, nothing is known here.
//
// run() is the loop for nearly all of them. It calls nothing: whatever is in a register when a function is called has to be
// stored first, even if the call is hardly ever made. So it gives up before a sequence that is out of the ordinary, or before
// one is carried out for which the room is scarce, and sequences() sees to that one and starts it again.

import { ahead, highest, opening } from './bits.as';
import { LITERALS, LL_TABLE, ML_TABLE, OF_TABLE, PATTERNS, STEPS, TURNS } from './places.as';
import { BAD_DATA, TOO_MUCH } from './results.as';
import { llLog, mlLog, ofLog } from './sequence-tables.as';
import { prepareShuffles } from './shuffles.as';

// How far behind a match run() may write: 31 bytes, really.
export const SPILL: usize = 48;

// More bits than a sequence may have to be read at once.
const MANY: u64 = 54;

const DONE: i32 = 0;
const TOO_LONG: i32 = 1; // the next sequence has too many bits
const TOO_NEAR: i32 = 2; // a sequence is decoded (`literals`, `length`, `offset`) that ends too near to the end

// The offsets used last; they last from block to block of a frame.
let rep1: u32 = 0;
let rep2: u32 = 0;
let rep3: u32 = 0;

// What run() begins and ends with.
let position: u64 = 0;
let ll: usize = 0; // states
let ml: usize = 0;
let oo: usize = 0;
let from: usize = 0; // the next literal
let to: usize = 0;
let left: i32 = 0; // sequences to come

// One decoded sequence.
let literals: u32 = 0;
let length: u32 = 0;
let offset: u32 = 0;

// How far the literals were used: a result of sequences().
export let literalsUsed: usize = 0;

// A frame begins.
export function forgetOffsets(): void {
  rep1 = 1;
  rep2 = 4;
  rep3 = 8;
}

prepareShuffles();

// Carries out sequences as long as they end at or below `fast`; may write SPILL bytes beyond that. The literals may be too
// few, but what is read of them is never out of the buffer: the output would be too long first.
export function run(start: u64, fast: usize, origin: usize, far: u32): i32 {
  let p = position;
  let l = ll;
  let m = ml;
  let o = oo;
  let literal = from;
  let out = to;
  let count = left;
  let back = rep1;
  let reps = i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(back), 1, rep2), 2, rep3);
  let result = DONE;
  do {
    if (p < start) return BAD_DATA;
    const total = <u64>(load<u8>(l, LL_TABLE) + load<u8>(m, ML_TABLE) + load<u8>(o, OF_TABLE + 4));
    if (total >= MANY) {
      result = TOO_LONG;
      break;
    }
    // Bits 0-3 mean nothing; from bit 4 on come the bits of the next states, then those of the values.
    let w = load<u64>(<usize>((p - 57) >> 3)) >> (p - total - 4 - ((p - 57) & ~7));
    p -= total;
    const nextO = (<u32>w & load<u16>(o, OF_TABLE + 6)) + load<u16>(o, OF_TABLE + 8);
    w >>= <u64>load<u8>(o, OF_TABLE + 5);
    const nextM = (<u32>w & load<u16>(m, ML_TABLE + 4)) + load<u16>(m, ML_TABLE + 6);
    w >>= <u64>load<u8>(m, ML_TABLE + 1);
    const nextL = (<u32>w & load<u16>(l, LL_TABLE + 4)) + load<u16>(l, LL_TABLE + 6);
    w >>= <u64>load<u8>(l, LL_TABLE + 1);
    w >>= 3;
    let some: u32 = load<u8>(l, LL_TABLE + 2);
    let match: u32 = load<u8>(m, ML_TABLE + 2);
    const n = <u32>load<u8>(l, LL_TABLE + 3);
    const k = <u32>load<u8>(m, ML_TABLE + 3);
    let value = load<u32>(o, OF_TABLE);
    l = nextL;
    m = nextM;
    o = nextO;
    if (n) {
      some = (some << n) + (<u32>w & ((1 << n) - 1));
      w >>= <u64>n;
    }
    if (k) {
      match = (match << k) + (<u32>w & ((1 << k) - 1));
      w >>= <u64>k;
    }
    value += <u32>w & (value - 1);

    // Which offset it is could not be guessed by a branch, and vectors leave the registers to others. From turn 4 on the offset
    // is a new one: one less than the last (value 3 without literals), or one that is told.
    const turn = min<u32>(value + ((some - 1) >>> 31), 4);
    const other = select<u32>(value - 3, back - 1, value > 3);
    reps = i8x16.swizzle(i32x4.replace_lane(reps, 3, other), v128.load(<usize>turn << 4, TURNS));
    back = i32x4.extract_lane(reps, 0);

    const outMatch = out + some;
    const outNext = outMatch + match + 3;
    if (outNext > fast) {
      literals = some;
      length = match + 3;
      offset = back;
      result = TOO_NEAR;
      break;
    }
    if (<usize>(back - 1) >= outMatch - origin) return BAD_DATA;
    if (back > far) return BAD_DATA;
    v128.store(out, v128.load(literal));
    if (some > 16) {
      let at = literal;
      do {
        out += 16;
        at += 16;
        v128.store(out, v128.load(at));
      } while (out + 16 < outMatch);
    }
    literal += some;
    out = outMatch;
    let at = out - back;
    if (back >= 16) {
      v128.store(out, v128.load(at));
      v128.store(out, v128.load(at, 16), 16);
      if (match > 29) {
        do {
          at += 32;
          out += 32;
          v128.store(out, v128.load(at));
          v128.store(out, v128.load(at, 16), 16);
        } while (out + 32 < outNext);
      }
    } else {
      const pattern = i8x16.swizzle(v128.load(at), v128.load(<usize>back << 4, PATTERNS));
      const step = <usize>load<u8>(back, STEPS);
      do {
        v128.store(out, pattern);
        out += step;
      } while (out < outNext);
    }
    out = outNext;
  } while (--count);
  position = p;
  ll = l;
  ml = m;
  oo = o;
  from = literal;
  to = out;
  left = count;
  rep1 = back;
  rep2 = i32x4.extract_lane(reps, 1);
  rep3 = i32x4.extract_lane(reps, 2);
  return result;
}

// Decodes the next sequence, whatever its number of bits; the last one has no next states. False: there are too few bits.
function decodeOne(start: u64, isLast: bool): bool {
  let p = position;
  if (p < start) return false;
  const isLong = load<u8>(ll, LL_TABLE) + load<u8>(ml, ML_TABLE) + load<u8>(oo, OF_TABLE + 4) >= MANY;
  let w = ahead(p);
  let n = <u64>(load<u8>(oo, OF_TABLE + 4) + 1 - load<u8>(oo, OF_TABLE + 5));
  const value = load<u32>(oo, OF_TABLE) + <u32>highest(w, n);
  p -= n;
  w <<= n;
  if (isLong) {
    if (p < start) return false;
    w = ahead(p);
  }
  n = load<u8>(ml, ML_TABLE + 3);
  length = (<u32>load<u8>(ml, ML_TABLE + 2) << <u32>n) + <u32>highest(w, n) + 3;
  p -= n;
  w <<= n;
  n = load<u8>(ll, LL_TABLE + 3);
  literals = (<u32>load<u8>(ll, LL_TABLE + 2) << <u32>n) + <u32>highest(w, n);
  p -= n;
  if (!isLast) {
    if (p < start) return false;
    const nO = <u64>load<u8>(oo, OF_TABLE + 5) - 1;
    const nM = <u64>load<u8>(ml, ML_TABLE + 1);
    const nL = <u64>load<u8>(ll, LL_TABLE + 1);
    const v = <u32>highest(ahead(p), nO + nM + nL);
    p -= nO + nM + nL;
    oo = ((v << 4) & load<u16>(oo, OF_TABLE + 6)) + load<u16>(oo, OF_TABLE + 8);
    ml = ((v >> <u32>nO << 3) & load<u16>(ml, ML_TABLE + 4)) + load<u16>(ml, ML_TABLE + 6);
    ll = ((v >> <u32>(nO + nM) << 3) & load<u16>(ll, LL_TABLE + 4)) + load<u16>(ll, LL_TABLE + 6);
  }
  position = p;

  const turn = value + <u32>(literals == 0);
  if (value > 3) offset = value - 3;
  else offset = turn == 1 ? rep1 : turn == 2 ? rep2 : turn == 3 ? rep3 : rep1 - 1;
  if (turn > 2) rep3 = rep2;
  if (turn > 1) rep2 = rep1;
  rep1 = offset;
  return true;
}

// Carries out the decoded sequence, and writes nothing behind it. Returns 0 or a negative code.
function carryOut(hard: usize, origin: usize, far: u32): i32 {
  const outMatch = to + literals;
  const outNext = outMatch + length;
  if (<usize>(offset - 1) >= outMatch - origin || offset > far) return BAD_DATA;
  if (outNext > hard) return TOO_MUCH;
  memory.copy(to, from, literals);
  from += literals;
  // Each time all that there is from the match's start on.
  const start = outMatch - offset;
  for (let out = outMatch; out < outNext; ) {
    const n = min(out - start, outNext - out);
    memory.copy(out, start, n);
    out += n;
  }
  to = outNext;
  return 0;
}

// Decodes `count` sequences from [p, end) and carries them out, from `out` up to `hard`; up to `fast` one may write SPILL
// bytes beyond. A match may reach back to `origin`, and `far` bytes at most. How far the literals were used is in
// `literalsUsed`; it may be too far. Returns the number of bytes, or a negative code.
export function sequences(p: usize, end: usize, count: i32, out: usize, hard: usize, fast: usize, origin: usize, far: u32): i32 {
  position = opening(p, end);
  if (position == 0) return BAD_DATA;
  const start = <u64>p << 3;
  const logs = llLog + ofLog + mlLog;
  if (position < start + logs) return BAD_DATA;
  let w = ahead(position);
  position -= logs;
  ll = <usize>highest(w, llLog) << 3;
  w <<= <u64>llLog;
  oo = <usize>highest(w, ofLog) << 4;
  w <<= <u64>ofLog;
  ml = <usize>highest(w, mlLog) << 3;
  from = LITERALS;
  to = out;
  left = count - 1;
  while (left > 0) {
    const result = run(start, fast, origin, far);
    if (result < 0) return result;
    if (result == DONE) break;
    if (result == TOO_LONG && !decodeOne(start, false)) return BAD_DATA;
    const r = carryOut(hard, origin, far);
    if (r < 0) return r;
    left--;
  }
  if (!decodeOne(start, true)) return BAD_DATA;
  const r = carryOut(hard, origin, far);
  if (r < 0) return r;
  if (position != start) return BAD_DATA;
  literalsUsed = from;
  return <i32>(to - out);
}
