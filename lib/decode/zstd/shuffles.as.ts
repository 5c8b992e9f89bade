// Tables for rearranging the bytes of a vector, with i8x16.swizzle. What for, is up to sequences.as.ts.

import { PATTERNS, STEPS, TURNS } from './places.as';

// Of a vector of the last three offsets and a new one (lane 3), which ones will be the last three.
function turnTo(turn: usize, one: u32, two: u32, three: u32): void {
  store<u32>(TURNS + (turn << 4), one * 0x04040404 + 0x03020100);
  store<u32>(TURNS + (turn << 4), two * 0x04040404 + 0x03020100, 4);
  store<u32>(TURNS + (turn << 4), three * 0x04040404 + 0x03020100, 8);
}

// TURNS: the cases 1 to 3 of RFC 8878, section 3.1.1.5, each take up a last offset again; 4 is for a new one.
// PATTERNS: for each d < 16, the first d bytes again and again; STEPS: how many bytes of this are whole repeats.
export function prepareShuffles(): void {
  turnTo(1, 0, 1, 2);
  turnTo(2, 1, 0, 2);
  turnTo(3, 2, 0, 1);
  turnTo(4, 3, 0, 1);
  for (let d = 1; d < 16; d++) {
    for (let i = 0; i < 16; i++) store<u8>(PATTERNS + (<usize>d << 4) + i, i % d);
    store<u8>(STEPS + d, 16 - 16 % d);
  }
}
