// Raw deflate (RFC 1951) from one place of linear memory into another. Written in AssemblyScript: this file is compiled to
// WebAssembly, and its tables lie at fixed places, as nothing is ever allocated.
//
// decode(src, srcLen, dst, dstMax) reads [src, src+srcLen) and writes [dst, dst+dstMax), never outside.
// It returns the number of bytes written, or BAD_DATA, or OUT_OF_INPUT. As with zlib's Z_FINISH a full output is a
// success even if the stream goes on.
//
// A table entry is an i32; its low 6 bits are always the number of bits to drop, so shifting by the whole entry works
// (wasm takes shift counts modulo 64):
//   literal    bit 30 set, bits 16-23 the byte
//   length     bits 16-24 base, bits 8-12 bits of the code word alone, bits 0-5 code word + extra bits
//   distance   bits 16-30 base, likewise
//   otherwise  bit 15 (SPECIAL) and LINK, END or neither (a code word that means nothing)
//   link       bits 16-30 index of the subtable's first entry, bits 8-11 its width in bits

const LITERAL: i32 = 0x40000000;
const SPECIAL: i32 = 0x8000;
const LINK: i32 = 0x4000;
const END: i32 = 0x2000;

const LIT_BITS: i32 = 11;
const DIST_BITS: i32 = 8;
const PRE_BITS: i32 = 7;

// Fixed places in the first 64 KiB (the caller uses what is above).
const LIT_TABLE: usize = 0x1000; // at most 2342 entries for 288 symbols, 11 bits, code words of 15 bits
const DIST_TABLE: usize = 0x4000; // at most 402 entries for 32 symbols, 8 bits
const PRE_TABLE: usize = 0x5000; // 128 entries
const LENS: usize = 0x5800; // 288 + 32 code lengths, and room for one run of 138
const PRE_LENS: usize = 0x5a00;
const SORTED: usize = 0x5b00; // u16 per symbol
const COUNTS: usize = 0x5e00; // u32 per length 0-15
const OFFSETS: usize = 0x5e40;
const LIT_PROTO: usize = 0x6000; // an entry without its code length for each of 288 symbols
const DIST_PROTO: usize = 0x6600; // 32 symbols
const PRE_PROTO: usize = 0x6700; // 19 symbols

const BAD_DATA: i32 = -1;
const OUT_OF_INPUT: i32 = -2;

let bits: u64 = 0; // not yet used bits, the next one lowest
let have: i32 = 0; // how many of them count
let next: usize = 0;
let end: usize = 0;
let fixedLoaded: bool = false;
let litMask: i32 = 0; // of offsets into the literal table

const ORDER = memory.data<u8>([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]);

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
function build(lens: usize, n: i32, table: usize, tableBits: i32, proto: usize, mayBeIncomplete: bool): bool {
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

function loadFixed(): void {
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

// At least 56 bits, or all there are; bits above `have` are zero at the input's end only.
function fill(): void {
  if (next + 8 <= end) {
    bits |= load<u64>(next) << have;
    next += (63 - have) >> 3;
    have |= 56;
  } else {
    bits &= (<u64>1 << have) - 1;
    while (have <= 55 && next < end) {
      bits |= <u64>load<u8>(next++) << have;
      have += 8;
    }
  }
}

// @ts-ignore: decorator
@inline function drop(n: i32): void {
  bits >>= n;
  have -= n;
}

function readTables(): i32 {
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

// Copies what stands dist before `to`, up to `stop` and up to 15 bytes beyond it, in whole words.
// @ts-ignore: decorator
@inline function copyWide(to: usize, dist: usize, stop: usize): void {
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

// @ts-ignore: decorator
@inline function lit(b: u64, mask: i32): u64 {
  return load<u32>(<usize>(<i32>b & mask), LIT_TABLE);
}

export function decode(src: usize, srcLen: i32, dst: usize, dstMax: i32): i32 {
  next = src;
  end = src + srcLen;
  bits = 0;
  have = 0;
  const dstEnd = dst + dstMax;
  let out = dst;
  // A turn of the fast loop refills at most three times (7 bytes on, 8 read), and writes 3 literals, a match of 258
  // and up to 15 bytes beyond it.
  const inFast = srcLen >= 24 ? end - 24 : 0;
  const outFast = dstMax >= 288 ? dstEnd - 288 : 0;

  let last: i32;
  do {
    fill();
    if (have < 3) return out == dstEnd ? dstMax : OUT_OF_INPUT;
    last = <i32>bits & 1;
    const type = (<i32>bits >> 1) & 3;
    drop(3);
    if (type == 0) {
      // Back to the byte after the header; what was read ahead is given back.
      next -= have >> 3;
      bits = 0;
      have = 0;
      if (next + 4 > end) return out == dstEnd ? dstMax : OUT_OF_INPUT;
      const len = <i32>load<u16>(next);
      if (len != (<i32>load<u16>(next + 2) ^ 0xffff)) return BAD_DATA;
      next += 4;
      let n = min<usize>(len, end - next);
      n = min<usize>(n, dstEnd - out);
      memory.copy(out, next, n);
      out += n;
      next += n;
      if (<i32>n < len) {
        return out == dstEnd ? dstMax : OUT_OF_INPUT;
      }
      continue;
    }
    if (type == 3) return BAD_DATA;
    if (type == 1) {
      loadFixed();
    } else {
      const r = readTables();
      if (r == OUT_OF_INPUT) return out == dstEnd ? dstMax : r;
      if (r < 0) return r;
    }

    let done = false;

    if (next < inFast && out < outFast) {
      // Here the bits stand two places higher, above two that mean nothing, so that masking them gives an offset into
      // a table of 4-byte entries; bc counts those two as well.
      if (have > 56) {
        have -= 8;
        next--;
      }
      let bb = bits << 2;
      let bc = <u64>have + 2;
      let at = next;
      const mask = litMask;
      bb |= load<u64>(at) << bc;
      at += 7 - ((<usize>bc >> 3) & 7);
      bc |= 56;
      let e = lit(bb, mask);
      do {
        let saved = bb;
        bb >>= e;
        bc -= e;
        if (e >= <u64>LITERAL) {
          store<u8>(out, <u32>e >> 16);
          out++;
          e = lit(bb, mask);
          saved = bb;
          bb >>= e;
          bc -= e;
          if (e >= <u64>LITERAL) {
            store<u8>(out, <u32>e >> 16);
            out++;
            e = lit(bb, mask);
            saved = bb;
            bb >>= e;
            bc -= e;
            if (e >= <u64>LITERAL) {
              store<u8>(out, <u32>e >> 16);
              out++;
              e = lit(bb, mask);
              if (e >= <u64>LITERAL) {
                store<u8>(out, <u32>e >> 16);
                out++;
                bb >>= e;
                bc -= e;
              }
              bb |= load<u64>(at) << bc;
              at += 7 - ((<usize>bc >> 3) & 7);
              bc |= 56;
              e = lit(bb, mask);
              continue;
            }
          }
        }
        if (<i32>e & SPECIAL) {
          if (<i32>e & LINK) {
            const width = (<i32>e >> 8) & 15;
            const index = ((<i32>e >> 16) & 0x7fff) + ((<i32>bb >> 2) & ((1 << width) - 1));
            e = load<u32>(<usize>index << 2, LIT_TABLE);
            saved = bb;
            bb >>= e;
            bc -= e;
            if (e >= <u64>LITERAL) {
              store<u8>(out, <u32>e >> 16);
              out++;
              e = lit(bb, mask);
              if (e >= <u64>LITERAL) {
                store<u8>(out, <u32>e >> 16);
                out++;
                bb >>= e;
                bc -= e;
              }
              bb |= load<u64>(at) << bc;
              at += 7 - ((<usize>bc >> 3) & 7);
              bc |= 56;
              e = lit(bb, mask);
              continue;
            }
          }
          if (<i32>e & SPECIAL) {
            if (!(<i32>e & END)) return BAD_DATA;
            done = true;
            break;
          }
        }
        const len: i32 = (<i32>e >> 16) + <i32>((saved & ((<u64>4 << e) - 1)) >> <u64>((<i32>e >> 8) + 2));
        // Seldom are too few bits left for a distance.
        if ((<i32>bc & 63) < 30) {
          bb |= load<u64>(at) << bc;
          at += 7 - ((<usize>bc >> 3) & 7);
          bc |= 56;
        }
        e = load<u32>(<usize>bb & 0x3fc, DIST_TABLE);
        if (<i32>e & SPECIAL) {
          if (!(<i32>e & LINK)) return BAD_DATA;
          bb >>= e;
          bc -= e;
          const width = (<i32>e >> 8) & 15;
          const index = ((<i32>e >> 16) & 0x7fff) + ((<i32>bb >> 2) & ((1 << width) - 1));
          e = load<u32>(<usize>index << 2, DIST_TABLE);
          if (<i32>e & SPECIAL) return BAD_DATA;
        }
        saved = bb;
        bb >>= e;
        bc -= e;
        const dist: usize = (<i32>e >> 16) + <i32>((saved & ((<u64>4 << e) - 1)) >> <u64>((<i32>e >> 8) + 2));
        if (dist > out - dst) return BAD_DATA;
        bb |= load<u64>(at) << bc;
        at += 7 - ((<usize>bc >> 3) & 7);
        bc |= 56;
        e = lit(bb, mask);

        copyWide(out, dist, out + len);
        out += len;
      } while (at < inFast && out < outFast);
      bits = bb >> 2;
      have = (<i32>bc & 63) - 2;
      next = at;
    }

    while (!done) {
      fill();
      let e = load<i32>(<usize>((<i32>bits << 2) & litMask), LIT_TABLE);
      let n = 0;
      if (e < LITERAL && (e & (SPECIAL | LINK)) == (SPECIAL | LINK)) {
        n = e & 63;
        const width = (e >> 8) & 15;
        const index = ((e >> 16) & 0x7fff) + (<i32>(bits >> n) & ((1 << width) - 1));
        e = load<i32>(<usize>index << 2, LIT_TABLE);
      }
      n += e & 63;
      if (n > have) return out == dstEnd ? dstMax : OUT_OF_INPUT;
      if (e >= LITERAL) {
        if (out == dstEnd) return dstMax;
        store<u8>(out++, e >> 16);
        drop(n);
        continue;
      }
      if (e & SPECIAL) {
        if (!(e & END)) return BAD_DATA;
        drop(n);
        break;
      }
      let extra = (e & 63) - ((e >> 8) & 31);
      const len = (e >> 16) + (<i32>(bits >> (n - extra)) & ((1 << extra) - 1));
      drop(n);
      e = load<i32>((<usize>(<i32>bits & 0xff) << 2), DIST_TABLE);
      n = 0;
      if ((e & (SPECIAL | LINK)) == (SPECIAL | LINK)) {
        n = e & 63;
        const width = (e >> 8) & 15;
        const index = ((e >> 16) & 0x7fff) + (<i32>(bits >> n) & ((1 << width) - 1));
        e = load<i32>(<usize>index << 2, DIST_TABLE);
      }
      if (e & SPECIAL) {
        n += e & 63;
        if (n > have) return out == dstEnd ? dstMax : OUT_OF_INPUT;
        return BAD_DATA;
      }
      n += e & 63;
      if (n > have) return out == dstEnd ? dstMax : OUT_OF_INPUT;
      extra = (e & 63) - ((e >> 8) & 31);
      const dist: usize = (e >> 16) + (<i32>(bits >> (n - extra)) & ((1 << extra) - 1));
      drop(n);
      if (out == dstEnd) return dstMax;
      if (dist > out - dst) return BAD_DATA;
      const room = <i32>(dstEnd - out);
      if (len + 16 <= room) {
        copyWide(out, dist, out + len);
        out += len;
        continue;
      }
      const stop = out + min(len, room);
      do {
        store<u8>(out, load<u8>(out - dist));
      } while (++out < stop);
      if (len > room) return dstMax;
    }
  } while (!last);
  return <i32>(out - dst);
}
