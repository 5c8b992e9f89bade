// The tables that sequences are decoded with: for literal lengths, match lengths and offsets, either as the format fixes them,
// or as a block describes them, or those of the block before. Nothing is known here of the bits that choose a state.

import { log, number, readDistribution, spread, symbols, widen } from './distributions.as';
import {
  CELLS, LL_DEFAULT, LL_PROTO, LL_TABLE, ML_DEFAULT, ML_PROTO, ML_TABLE, OF_DEFAULT, OF_TABLE,
} from './places.as';
import { BAD_DATA } from './results.as';

export const LL: i32 = 0;
export const OF: i32 = 1;
export const ML: i32 = 2;

const LL_NORM = memory.data<i8>([4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1]);
const ML_NORM = memory.data<i8>([1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1]);
const OF_NORM = memory.data<i8>([1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1]);
const LL_BITS = memory.data<u8>([1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]); // from code 16
const ML_BITS = memory.data<u8>([1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]); // from code 32

// What lasts from block to block of a frame: the tables, and how many bits choose a state of each.
export let llLog: i32 = 0;
export let ofLog: i32 = 0;
export let mlLog: i32 = 0;
let haveTables: bool = false;

// A frame begins: there are no tables of a block before.
export function forgetTables(): void {
  haveTables = false;
}

// All three tables of a block are read.
export function keepTables(): void {
  haveTables = true;
}

// The entry of a state of the table for literal or match lengths is 8 bytes:
//   0 u8   bits of the value + bits of the next state      1 u8   bits of the next state
//   2 u8   the value's (or the value - 3's) base >> bits   3 u8   bits of the value
//   4 u16  mask for the bits of the next state             6 u16  the next state without these bits
// and of that for offsets 16 bytes, 10 of them in use:
//   0 u32  base of the value, which is 1 << its bits
//   4 u8   bits of the value + bits of the next state      5 u8   bits of the next state + 1
//   6 u16  mask for the bits of the next state             8 u16  the next state without these bits
// A state is the offset of its entry in the table, so masks and next states are multiples of 8 or 16.
// A prototype has what belongs to the value only.

function prepare(): void {
  for (let i = 0; i < 16; i++) store<u32>(LL_PROTO + (<usize>i << 2), i << 16);
  let base = 16;
  for (let i = 16; i < 36; i++) {
    const n = <i32>load<u8>(LL_BITS + i - 16);
    store<u32>(LL_PROTO + (<usize>i << 2), (n << 24) | ((base >> n) << 16) | n);
    base += 1 << n;
    if (i == 24) base = 64;
  }
  for (let i = 0; i < 32; i++) store<u32>(ML_PROTO + (<usize>i << 2), i << 16);
  base = 32;
  for (let i = 32; i < 53; i++) {
    const n = <i32>load<u8>(ML_BITS + i - 32);
    store<u32>(ML_PROTO + (<usize>i << 2), (n << 24) | ((base >> n) << 16) | n);
    base += 1 << n;
  }
  widen(LL_NORM, 36);
  build(LL_DEFAULT, 6, 36, LL_PROTO);
  widen(ML_NORM, 53);
  build(ML_DEFAULT, 6, 53, ML_PROTO);
  widen(OF_NORM, 29);
  buildOffsets(OF_DEFAULT, 5, 29);
}
prepare();

function build(table: usize, tableLog: i32, n: i32, proto: usize): void {
  spread(tableLog, n);
  const size = 1 << tableLog;
  const spare = clz(size);
  for (let i = 0; i < size; i++) {
    const s = <usize>load<u8>(CELLS + i);
    const x = number(s);
    const n = clz(x) - spare;
    const mask = (8 << n) - 8;
    const next = ((x << n) - size) << 3;
    store<u32>(table, load<u32>(proto + (s << 2)) + n * 0x101);
    store<u32>(table, mask | (next << 16), 4);
    table += 8;
  }
}

function buildOffsets(table: usize, tableLog: i32, n: i32): void {
  spread(tableLog, n);
  const size = 1 << tableLog;
  const spare = clz(size);
  for (let i = 0; i < size; i++) {
    const s = <i32>load<u8>(CELLS + i);
    const x = number(s);
    const n = clz(x) - spare;
    const mask = (16 << n) - 16;
    const next = ((x << n) - size) << 4;
    store<u32>(table, 1 << s);
    store<u32>(table, (s + n) | ((n + 1) << 8) | (mask << 16), 4);
    store<u32>(table, next, 8);
    table += 16;
  }
}

// Sets up one sequence table; returns the bytes it took, or BAD_DATA.
export function readTable(mode: i32, p: usize, end: usize, kind: i32): i32 {
  const table = kind == LL ? LL_TABLE : kind == ML ? ML_TABLE : OF_TABLE;
  const proto = kind == LL ? LL_PROTO : ML_PROTO;
  const codes = kind == LL ? 36 : kind == ML ? 53 : 32;
  let used = 0;
  let tableLog = 0;
  if (mode == 0) {
    tableLog = kind == OF ? 5 : 6;
    const from = kind == LL ? LL_DEFAULT : kind == ML ? ML_DEFAULT : OF_DEFAULT;
    for (let i = 0; i < 512; i += 8) store<u64>(table + i, load<u64>(from + i));
  } else if (mode == 1) {
    if (p >= end) return BAD_DATA;
    const s = <i32>load<u8>(p);
    if (s >= codes) return BAD_DATA;
    if (kind == OF) {
      store<u32>(table, 1 << s);
      store<u32>(table, s | 0x100, 4);
      store<u32>(table, 0, 8);
    } else {
      store<u64>(table, load<u32>(proto + (<usize>s << 2)));
    }
    used = 1;
  } else if (mode == 2) {
    used = readDistribution(p, end, kind == OF ? 8 : 9, codes);
    if (used < 0) return used;
    tableLog = log;
    if (kind == OF) buildOffsets(table, log, symbols);
    else build(table, log, symbols, proto);
  } else {
    return haveTables ? 0 : BAD_DATA;
  }
  if (kind == LL) llLog = tableLog;
  else if (kind == ML) mlLog = tableLog;
  else ofLog = tableLog;
  return used;
}
