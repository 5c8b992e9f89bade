// A decoding table, made of the lengths of all code words. An entry is what entries.as.ts says, and where the
// lengths come from is not known here.

import { LINK, SPECIAL } from './entries.as';
import { COUNTS, LIT_TABLE, OFFSETS, SORTED } from './places.as';

export let litMask: i32 = 0; // of offsets into the literal table

// Appends a table's copy to itself.
function double(table: usize, entries: i32): void {
  const stop = table + (<usize>entries << 2);
  for (let to = stop; table < stop; table += 8, to += 8) store<u64>(to, load<u64>(table));
}

// @ts-ignore: decorator
@inline function entry(proto: usize, sorted: usize, len: i32): i32 {
  return load<i32>(proto + (<usize>load<u16>(sorted) << 2)) + len * 0x101;
}

// Builds the decoding table for n code lengths. False: over-subscribed, or incomplete where that is not allowed.
export function build(lens: usize, n: i32, table: usize, tableBits: i32, proto: usize, mayBeIncomplete: bool): bool {
  const counts = COUNTS;
  for (let i = 0; i < 64; i += 8) store<u64>(counts + i, 0);
  for (let i = 0; i < n; i++) {
    const at = counts + (<usize>load<u8>(lens + i) << 2);
    store<i32>(at, load<i32>(at) + 1);
  }
  let longest = 15;
  while (longest > 0 && load<i32>(counts + (<usize>longest << 2)) == 0) longest--;
  if (table == LIT_TABLE) {
    // Small blocks seldom have long codes, and filling the table is most of their cost.
    tableBits = min(tableBits, longest);
    litMask = ((1 << tableBits) - 1) << 2;
  }
  const size = 1 << tableBits;
  if (longest == 0) {
    // No code at all: each code word is one bit that means nothing. (In a code length code it reads as length 0, which
    // is what zlib does too: the literal code is then found to be without an end.)
    for (let i = 0; i < size; i++) store<i32>(table + (<usize>i << 2), SPECIAL | 0x101);
    return true;
  }
  let left = 1;
  let offset = 0;
  for (let len = 1; len <= 15; len++) {
    const c = load<i32>(counts + (<usize>len << 2));
    left = (left << 1) - c;
    if (left < 0) return false;
    store<i32>(OFFSETS + (<usize>len << 2), offset);
    offset += c;
  }
  for (let i = 0; i < n; i++) {
    const len = load<u8>(lens + i);
    if (len) {
      const at = OFFSETS + (<usize>len << 2);
      const o = load<i32>(at);
      store<i32>(at, o + 1);
      store<u16>(SORTED + (<usize>o << 1), <u16>i);
    }
  }
  if (left > 0) {
    if (!mayBeIncomplete || longest != 1) return false;
    const e = entry(proto, SORTED, 1);
    for (let i = 0; i < size; i += 2) {
      store<i32>(table + (<usize>i << 2), e);
      store<i32>(table + (<usize>i << 2) + 4, SPECIAL | 0x101);
    }
    return true;
  }

  // Code words come in order of length, bit-reversed, so that each one is its own index. A table for code words of
  // `len` bits is doubled to become the one for len + 1.
  let sorted: usize = SORTED;
  let word = 0;
  let len = 1;
  let count = load<i32>(counts + 4);
  while (count == 0) count = load<i32>(counts + (<usize>++len << 2));
  let filled = 1 << len;
  while (len <= tableBits) {
    do {
      store<i32>(table + (<usize>word << 2), entry(proto, sorted, len));
      sorted += 2;
      if (word == filled - 1) {
        while (len < tableBits) {
          double(table, filled);
          filled <<= 1;
          len++;
        }
        return true;
      }
      const top = 1 << (31 - clz(word ^ (filled - 1)));
      word = (word & (top - 1)) | top;
    } while (--count);
    do {
      if (++len <= tableBits) {
        double(table, filled);
        filled <<= 1;
      }
      count = load<i32>(counts + (<usize>len << 2));
    } while (count == 0);
  }

  filled = size;
  let prefix = -1;
  let start = 0;
  for (;;) {
    if ((word & (size - 1)) != prefix) {
      prefix = word & (size - 1);
      start = filled;
      let width = len - tableBits;
      let space = count;
      while (space < 1 << width) {
        width++;
        space = (space << 1) + load<i32>(counts + (<usize>(tableBits + width) << 2));
      }
      filled += 1 << width;
      store<i32>(table + (<usize>prefix << 2), SPECIAL | LINK | (start << 16) | (width << 8) | tableBits);
    }
    const own = len - tableBits;
    const e = entry(proto, sorted, own);
    sorted += 2;
    const stride = 1 << own;
    for (let i = start + (word >> tableBits); i < filled; i += stride) store<i32>(table + (<usize>i << 2), e);
    const all = (1 << len) - 1;
    if (word == all) break;
    const top = 1 << (31 - clz(word ^ all));
    word = (word & (top - 1)) | top;
    count--;
    while (count == 0) count = load<i32>(counts + (<usize>++len << 2));
  }
  return true;
}
