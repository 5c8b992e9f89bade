// The two codes of a block: the fixed ones, or those that its header describes. What is done with them is not known here.

import { bits, drop, fill, have } from './bits.as';
import {
  DIST_PROTO, DIST_TABLE, LENS, LIT_PROTO, LIT_TABLE, PRE_LENS, PRE_PROTO, PRE_TABLE,
} from './places.as';
import { BAD_DATA, OUT_OF_INPUT } from './results.as';
import { build } from './tables.as';

const LIT_BITS: i32 = 11;
const DIST_BITS: i32 = 8;
const PRE_BITS: i32 = 7;

let fixedLoaded: bool = false;

const ORDER = memory.data<u8>([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]);

// Makes both tables for the fixed codes, unless they are there already.
export function loadFixed(): void {
  if (fixedLoaded) return;
  memory.fill(LENS, 8, 144);
  memory.fill(LENS + 144, 9, 112);
  memory.fill(LENS + 256, 7, 24);
  memory.fill(LENS + 280, 8, 8);
  memory.fill(LENS + 288, 5, 32);
  build(LENS, 288, LIT_TABLE, LIT_BITS, LIT_PROTO, true);
  build(LENS + 288, 32, DIST_TABLE, DIST_BITS, DIST_PROTO, true);
  fixedLoaded = true;
}

// Reads a block's header from the bits, and makes both tables. Returns 0 or a negative code.
export function readTables(): i32 {
  if (have < 14) return OUT_OF_INPUT;
  const nLit = (<i32>bits & 31) + 257;
  const nDist = (<i32>(bits >> 5) & 31) + 1;
  const nPre = (<i32>(bits >> 10) & 15) + 4;
  drop(14);
  fixedLoaded = false; // LENS is about to change
  if (nLit > 286 || nDist > 30) return BAD_DATA;
  memory.fill(PRE_LENS, 0, 19);
  for (let i = 0; i < nPre; i++) {
    if (have < 3) {
      fill();
      if (have < 3) return OUT_OF_INPUT;
    }
    store<u8>(PRE_LENS + load<u8>(ORDER + i), <i32>bits & 7);
    drop(3);
  }
  if (!build(PRE_LENS, 19, PRE_TABLE, PRE_BITS, PRE_PROTO, false)) return BAD_DATA;
  const total = nLit + nDist;
  let i = 0;
  while (i < total) {
    if (have < 14) fill();
    const e = load<i32>(PRE_TABLE + (<usize>(<i32>bits & 127) << 2));
    const n = e & 63;
    if (n > have) return OUT_OF_INPUT;
    const sym = e >> 16;
    if (sym < 16) {
      store<u8>(LENS + i++, sym);
      drop(n);
      continue;
    }
    let run: i32;
    let value: i32 = 0;
    if (sym == 16) {
      if (n + 2 > have) return OUT_OF_INPUT;
      if (i == 0) return BAD_DATA;
      value = load<u8>(LENS + i - 1);
      run = 3 + (<i32>(bits >> n) & 3);
      drop(n + 2);
    } else if (sym == 17) {
      if (n + 3 > have) return OUT_OF_INPUT;
      run = 3 + (<i32>(bits >> n) & 7);
      drop(n + 3);
    } else {
      if (n + 7 > have) return OUT_OF_INPUT;
      run = 11 + (<i32>(bits >> n) & 127);
      drop(n + 7);
    }
    if (i + run > total) return BAD_DATA;
    const stop = i + run;
    const v = <u64>value * 0x0101010101010101;
    for (let to = i; to < stop; to += 8) store<u64>(LENS + to, v);
    i = stop;
  }
  if (load<u8>(LENS + 256) == 0) return BAD_DATA;
  if (!build(LENS, nLit, LIT_TABLE, LIT_BITS, LIT_PROTO, true)) return BAD_DATA;
  if (!build(LENS + nLit, nDist, DIST_TABLE, DIST_BITS, DIST_PROTO, true)) return BAD_DATA;
  return 0;
}
