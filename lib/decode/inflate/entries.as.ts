// A table entry is an i32; its low 6 bits are always the number of bits to drop, so shifting by the whole entry works
// (wasm takes shift counts modulo 64):
//   literal    bit 30 set, bits 16-23 the byte
//   length     bits 16-24 base, bits 8-12 bits of the code word alone, bits 0-5 code word + extra bits
//   distance   bits 16-30 base, likewise
//   otherwise  bit 15 (SPECIAL) and LINK, END or neither (a code word that means nothing)
//   link       bits 16-30 index of the subtable's first entry, bits 8-11 its width in bits
//
// Here is what the symbols of each code mean. Which code words a block gives them is not known here.

import { DIST_PROTO, LIT_PROTO, PRE_PROTO } from './places.as';

export const LITERAL: i32 = 0x40000000;
export const SPECIAL: i32 = 0x8000;
export const LINK: i32 = 0x4000;
export const END: i32 = 0x2000;

function prepare(): void {
  for (let i = 0; i < 256; i++) store<i32>(LIT_PROTO + (<usize>i << 2), LITERAL | (i << 16));
  store<i32>(LIT_PROTO + (256 << 2), SPECIAL | END);
  let base = 3;
  for (let i = 257; i < 285; i++) {
    const extra = i < 265 ? 0 : (i - 261) >> 2;
    store<i32>(LIT_PROTO + (<usize>i << 2), (base << 16) | extra);
    base += 1 << extra;
  }
  store<i32>(LIT_PROTO + (285 << 2), 258 << 16);
  store<i32>(LIT_PROTO + (286 << 2), SPECIAL);
  store<i32>(LIT_PROTO + (287 << 2), SPECIAL);
  base = 1;
  for (let i = 0; i < 30; i++) {
    const extra = i < 2 ? 0 : (i - 2) >> 1;
    store<i32>(DIST_PROTO + (<usize>i << 2), (base << 16) | extra);
    base += 1 << extra;
  }
  store<i32>(DIST_PROTO + (30 << 2), SPECIAL);
  store<i32>(DIST_PROTO + (31 << 2), SPECIAL);
  for (let i = 0; i < 19; i++) store<i32>(PRE_PROTO + (<usize>i << 2), i << 16);
}
prepare();
