// Zstandard frames (RFC 8878) from one place of linear memory into another. Written in AssemblyScript: this file is compiled
// to WebAssembly, and its tables lie at fixed places, as nothing is ever allocated.
//
// decode(src, srcLen, dst, dstMax) reads [src, src+srcLen) and writes [dst, dst+dstMax), never outside. It decodes
// frames one after another until exactly dstMax bytes came out and returns that number, or a negative code.
//
// Bits are read backwards. A position counts bits: the unread ones are below it. What is loaded is always the 8 bytes
// up to the position, shifted so that the next bit is the highest: at least 57 are good. That may reach up to 8 bytes
// before the start of a bit stream, which is always still inside the frame (magic number, headers), and what it finds
// there does no harm: it is used only until the position is found to be below the start.

const BAD_DATA: i32 = -1;
const OUT_OF_INPUT: i32 = -2;
const TOO_MUCH: i32 = -3;
const BAD_CHECKSUM: i32 = -4;
const WINDOW_TOO_LARGE: i32 = -5;
const NEEDS_DICTIONARY: i32 = -6;
const NO_FRAME: i32 = -7;

const BLOCK_MAX: i32 = 0x20000;
const WINDOW_MAX: u64 = 0x8000000;

const LL: i32 = 0;
const OF: i32 = 1;
const ML: i32 = 2;

// Fixed places.
const HUF_TABLE: usize = 0x1000; // 2048 u16: symbol in the high byte, length in the low one
const LL_TABLE: usize = 0x2000; // 512 entries, see below
const ML_TABLE: usize = 0x3000; // 512
const OF_TABLE: usize = 0x4000; // 256
const LL_DEFAULT: usize = 0x5000; // 64
const ML_DEFAULT: usize = 0x5200; // 64
const OF_DEFAULT: usize = 0x5400; // 32
const LL_PROTO: usize = 0x5600; // u32 for 36 codes
const ML_PROTO: usize = 0x5700; // 53
const NORM: usize = 0x5800; // i16 for up to 53 symbols
const NEXT: usize = 0x5900; // u16 for up to 53 symbols
const CELLS: usize = 0x5a00; // symbol of each of 512 states
const WEIGHTS: usize = 0x5c00; // 256
const RANKS: usize = 0x5d00; // i32 per weight 0-15
const SLOW: usize = 0x5d40; // results of slow()
const WEIGHT_TABLE: usize = 0x5e00; // 64 u32
const LITERALS: usize = 0x6000; // 128 KiB and what a wide copy may read beyond

const LL_NORM = memory.data<i8>([4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1]);
const ML_NORM = memory.data<i8>([1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1]);
const OF_NORM = memory.data<i8>([1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1]);
const LL_BITS = memory.data<u8>([1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]); // from code 16
const ML_BITS = memory.data<u8>([1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]); // from code 32

// What lasts from block to block of a frame.
let rep1: u32 = 0;
let rep2: u32 = 0;
let rep3: u32 = 0;
let haveHuffman: bool = false;
let haveTables: bool = false;
let llLog: i32 = 0;
let ofLog: i32 = 0;
let mlLog: i32 = 0;
let frameStart: usize = 0;
let window: u64 = 0;

let log: i32 = 0; // results of readDistribution
let symbols: i32 = 0;

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

function widen(from: usize, n: i32): void {
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
function readDistribution(p: usize, end: usize, maxLog: i32, maxSymbols: i32): i32 {
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
function spread(tableLog: i32, n: i32): void {
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

// @ts-ignore: decorator
@inline function number(s: usize): i32 {
  const x = <i32>load<u16>(NEXT + (s << 1));
  store<u16>(NEXT + (s << 1), x + 1);
  return x;
}

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
function readTable(mode: i32, p: usize, end: usize, kind: i32): i32 {
  const table = kind == LL ? LL_TABLE : kind == ML ? ML_TABLE : OF_TABLE;
  const proto = kind == LL ? LL_PROTO : ML_PROTO;
  const codes = kind == LL ? 36 : kind == ML ? 53 : 32;
  let used = 0;
  if (mode == 0) {
    log = kind == OF ? 5 : 6;
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
    log = 0;
    used = 1;
  } else if (mode == 2) {
    used = readDistribution(p, end, kind == OF ? 8 : 9, codes);
    if (used < 0) return used;
    if (kind == OF) buildOffsets(table, log, symbols);
    else build(table, log, symbols, proto);
  } else {
    return haveTables ? 0 : BAD_DATA;
  }
  if (kind == LL) llLog = log;
  else if (kind == ML) mlLog = log;
  else ofLog = log;
  return used;
}

// The next bits of a stream, highest first; 57 are good.
// @ts-ignore: decorator
@inline function ahead(position: u64): u64 {
  return load<u64>(<usize>((position - 57) >> 3)) << (~(position - 57) & 7);
}

// Where a bit stream [p, end) begins to be read, or 0 if there is none.
// @ts-ignore: decorator
@inline function opening(p: usize, end: usize): u64 {
  if (end <= p) return 0;
  const last = <i32>load<u8>(end - 1);
  if (last == 0) return 0;
  return (<u64>end << 3) - (clz(last) - 23);
}

// Reads a Huffman tree's description and makes HUF_TABLE of it; returns its length in bytes, or BAD_DATA.
function readHuffman(p: usize, end: usize): i32 {
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
      const x = <i32>load<u16>(NEXT + (s << 1));
      store<u16>(NEXT + (s << 1), x + 1);
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

  for (let i = 0; i < 64; i += 8) store<u64>(RANKS + i, 0);
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const w = <i32>load<u8>(WEIGHTS + i);
    if (w > 11) return BAD_DATA;
    const at = RANKS + (<usize>w << 2);
    store<i32>(at, load<i32>(at) + 1);
    sum += (1 << w) >> 1;
  }
  if (sum == 0) return BAD_DATA;
  const maxBits = 32 - clz(sum);
  if (maxBits > 11) return BAD_DATA;
  const rest = (1 << maxBits) - sum;
  if (rest & (rest - 1)) return BAD_DATA;
  const lastWeight = ctz(rest) + 1;
  store<u8>(WEIGHTS + n++, lastWeight);
  const lastRank = RANKS + (<usize>lastWeight << 2);
  store<i32>(lastRank, load<i32>(lastRank) + 1);
  if (load<i32>(RANKS + 4) < 2) return BAD_DATA;

  // From counts to places in the table.
  let at = 0;
  for (let w = 1; w <= maxBits; w++) {
    const c = load<i32>(RANKS + (<usize>w << 2));
    store<i32>(RANKS + (<usize>w << 2), at);
    at += c << (w - 1 + 11 - maxBits + 1);
  }
  for (let i = 0; i < n; i++) {
    const w = <i32>load<u8>(WEIGHTS + i);
    if (w == 0) continue;
    const place = RANKS + (<usize>w << 2);
    let to = <usize>load<i32>(place);
    const bytes = 1 << (w - 1 + 11 - maxBits + 1);
    store<i32>(place, <i32>to + bytes);
    const e = <u64>((i << 8) | (maxBits + 1 - w)) * 0x0001000100010001;
    to += HUF_TABLE;
    if (bytes == 2) store<u16>(to, <u16>e);
    else if (bytes == 4) store<u32>(to, <u32>e);
    else for (const stop = to + bytes; to < stop; to += 8) store<u64>(to, e);
  }
  return used + 1;
}

// @ts-ignore: decorator
@inline function huf(c: u64): u64 {
  return <u64>load<u16>(<usize>(<i32>(c >> 52) & 0xffe), HUF_TABLE);
}

// Decodes the rest of one Huffman stream, from `position` down to exactly `start`.
function huffmanTail(position: u64, start: usize, out: usize, stop: usize): bool {
  const low = <u64>start << 3;
  while (stop - out >= 5) {
    if (position < low) return false;
    let c = ahead(position);
    let used: u64 = 0;
    for (let i = 0; i < 5; i++) {
      const e = huf(c);
      c <<= e;
      used += e & 255;
      store<u8>(out++, e >> 8);
    }
    position -= used;
  }
  while (out < stop) {
    if (position < low) return false;
    const e = huf(ahead(position));
    position -= e & 255;
    store<u8>(out++, e >> 8);
  }
  return position == low;
}

function huffman4(p: usize, end: usize, n: i32): bool {
  if (end - p < 10) return false;
  const s1 = p + 6;
  const s2 = s1 + load<u16>(p);
  const s3 = s2 + load<u16>(p, 2);
  const s4 = s3 + load<u16>(p, 4);
  if (s4 >= end) return false;
  const q1 = opening(s1, s2);
  const q2 = opening(s2, s3);
  const q3 = opening(s3, s4);
  const q4 = opening(s4, end);
  if (q1 == 0 || q2 == 0 || q3 == 0 || q4 == 0) return false;
  const part = <usize>(n + 3) >> 2;
  let o = LITERALS;
  const o4 = LITERALS + 3 * part;
  const stop = LITERALS + <usize>n;
  // The lowest bit of a container is sacrificed: as a mark, it tells how far it was shifted.
  let p1 = <usize>((q1 - 57) >> 3);
  let p2 = <usize>((q2 - 57) >> 3);
  let p3 = <usize>((q3 - 57) >> 3);
  let p4 = <usize>((q4 - 57) >> 3);
  let c1 = (load<u64>(p1) | 1) << (~(q1 - 57) & 7);
  let c2 = (load<u64>(p2) | 1) << (~(q2 - 57) & 7);
  let c3 = (load<u64>(p3) | 1) << (~(q3 - 57) & 7);
  let c4 = (load<u64>(p4) | 1) << (~(q4 - 57) & 7);
  const lowest = s1 - 8;
  let room = <usize>n > 3 * part ? stop - o4 : 0;
  for (;;) {
    // A turn uses at most 7 bytes of each stream.
    let turns = <i32>(min(min(p1, p2), min(p3, p4)) - lowest) / 7;
    turns = min(turns, <i32>room / 5);
    if (turns <= 0) break;
    room -= turns * 5;
    do {
      let e = huf(c1); c1 <<= e; store<u8>(o, e >> 8);
      e = huf(c1); c1 <<= e; store<u8>(o, e >> 8, 1);
      e = huf(c1); c1 <<= e; store<u8>(o, e >> 8, 2);
      e = huf(c1); c1 <<= e; store<u8>(o, e >> 8, 3);
      e = huf(c1); c1 <<= e; store<u8>(o, e >> 8, 4);
      let z = ctz(c1); p1 -= <usize>(z >> 3); c1 = (load<u64>(p1) | 1) << (z & 7);
      let to = o + part;
      e = huf(c2); c2 <<= e; store<u8>(to, e >> 8);
      e = huf(c2); c2 <<= e; store<u8>(to, e >> 8, 1);
      e = huf(c2); c2 <<= e; store<u8>(to, e >> 8, 2);
      e = huf(c2); c2 <<= e; store<u8>(to, e >> 8, 3);
      e = huf(c2); c2 <<= e; store<u8>(to, e >> 8, 4);
      z = ctz(c2); p2 -= <usize>(z >> 3); c2 = (load<u64>(p2) | 1) << (z & 7);
      to += part;
      e = huf(c3); c3 <<= e; store<u8>(to, e >> 8);
      e = huf(c3); c3 <<= e; store<u8>(to, e >> 8, 1);
      e = huf(c3); c3 <<= e; store<u8>(to, e >> 8, 2);
      e = huf(c3); c3 <<= e; store<u8>(to, e >> 8, 3);
      e = huf(c3); c3 <<= e; store<u8>(to, e >> 8, 4);
      z = ctz(c3); p3 -= <usize>(z >> 3); c3 = (load<u64>(p3) | 1) << (z & 7);
      to += part;
      e = huf(c4); c4 <<= e; store<u8>(to, e >> 8);
      e = huf(c4); c4 <<= e; store<u8>(to, e >> 8, 1);
      e = huf(c4); c4 <<= e; store<u8>(to, e >> 8, 2);
      e = huf(c4); c4 <<= e; store<u8>(to, e >> 8, 3);
      e = huf(c4); c4 <<= e; store<u8>(to, e >> 8, 4);
      z = ctz(c4); p4 -= <usize>(z >> 3); c4 = (load<u64>(p4) | 1) << (z & 7);
      o += 5;
    } while (--turns);
  }
  const o2 = LITERALS + part;
  const o3 = o2 + part;
  const done = o - LITERALS;
  return (
    huffmanTail((<u64>p1 << 3) + 64 - ctz(c1), s1, o, o2) &&
    huffmanTail((<u64>p2 << 3) + 64 - ctz(c2), s2, o2 + done, o3) &&
    huffmanTail((<u64>p3 << 3) + 64 - ctz(c3), s3, o3 + done, o4) &&
    huffmanTail((<u64>p4 << 3) + 64 - ctz(c4), s4, o4 + done, stop)
  );
}

let literalsUsed: usize = 0;

// The functions exported from here on are exported only to be kept from being inlined: with the registers for itself
// the loop of sequences() is much faster.

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

// Decodes a compressed block [p, end) to [out, ...); returns the number of bytes, or a negative code.
// `limit` is where the output ends.
function block(p: usize, end: usize, out: usize, limit: usize, blockMax: i32): i32 {
  if (end - p < 2) return BAD_DATA;
  const outStart = out;
  const blockEnd = out + blockMax;
  let litFrom: usize = LITERALS;
  let litEnd: usize;

  // Literals.
  const first = <i32>load<u8>(p);
  const format = (first >> 2) & 3;
  const type = first & 3;
  if (type < 2) {
    let size: i32;
    if (format == 1) {
      size = <i32>load<u16>(p) >> 4;
      p += 2;
    } else if (format == 3) {
      if (end - p < 3) return BAD_DATA;
      size = (<i32>load<u16>(p) >> 4) | (<i32>load<u8>(p, 2) << 12);
      p += 3;
    } else {
      size = first >> 3;
      p += 1;
    }
    if (size > blockMax) return BAD_DATA;
    if (type == 0) {
      if (size > <i32>(end - p)) return BAD_DATA;
      memory.copy(LITERALS, p, size);
      p += size;
      litEnd = LITERALS + size;
    } else {
      if (p >= end) return BAD_DATA;
      memory.fill(LITERALS, load<u8>(p++), size);
      litEnd = LITERALS + size;
    }
  } else {
    const header = format < 2 ? 3 : format + 2;
    if (end - p < <usize>header + 1) return BAD_DATA;
    const bits = <u64>load<u32>(p) | (header == 5 ? <u64>load<u8>(p, 4) << 32 : 0);
    const width = format < 2 ? 10 : format == 2 ? 14 : 18;
    const mask = (1 << width) - 1;
    const size = <i32>(bits >> 4) & mask;
    const packed = <i32>(bits >> (4 + width)) & mask;
    p += header;
    if (size > blockMax || packed > <i32>(end - p)) return BAD_DATA;
    const stop = p + packed;
    if (type == 2) {
      const n = readHuffman(p, stop);
      if (n < 0) return n;
      haveHuffman = true;
      p += n;
    } else if (!haveHuffman) return BAD_DATA;
    if (format == 0) {
      const position = opening(p, stop);
      if (position == 0 || !huffmanTail(position, p, LITERALS, LITERALS + size)) return BAD_DATA;
    } else {
      if (size < 6 || !huffman4(p, stop, size)) return BAD_DATA;
    }
    p = stop;
    litEnd = LITERALS + size;
  }

  // Sequences.
  if (p >= end) return BAD_DATA;
  let count = <i32>load<u8>(p++);
  if (count >= 128) {
    if (count < 255) {
      if (p >= end) return BAD_DATA;
      count = ((count - 128) << 8) + <i32>load<u8>(p++);
    } else {
      if (end - p < 2) return BAD_DATA;
      count = <i32>load<u16>(p) + 0x7f00;
      p += 2;
    }
  }
  if (count == 0) {
    if (p != end) return BAD_DATA;
  } else {
    if (p >= end) return BAD_DATA;
    const modes = <i32>load<u8>(p++);
    if (modes & 3) return BAD_DATA;
    let n = readTable(modes >> 6, p, end, LL);
    if (n < 0) return n;
    p += n;
    n = readTable((modes >> 4) & 3, p, end, OF);
    if (n < 0) return n;
    p += n;
    n = readTable((modes >> 2) & 3, p, end, ML);
    if (n < 0) return n;
    p += n;
    haveTables = true;

    const hard = min(limit, blockEnd);
    const r = sequences(p, end, count, out, hard, min(limit - 48, hard), frameStart, <u32>min<u64>(window, 0xffffffff));
    if (r < 0) return r == TOO_MUCH && limit > blockEnd ? BAD_DATA : r;
    out += r;
    litFrom = literalsUsed;
    if (litFrom > litEnd) return BAD_DATA;
  }

  const rest = litEnd - litFrom;
  if (rest > limit - out) return TOO_MUCH;
  if (out + rest > blockEnd) return BAD_DATA;
  memory.copy(out, litFrom, rest);
  return <i32>(out + rest - outStart);
}

const P1: u64 = 0x9e3779b185ebca87;
const P2: u64 = 0xc2b2ae3d27d4eb4f;
const P3: u64 = 0x165667b19e3779f9;
const P4: u64 = 0x85ebca77c2b2ae63;
const P5: u64 = 0x27d4eb2f165667c5;

// @ts-ignore: decorator
@inline function mix(lane: u64, v: u64): u64 {
  return rotl(lane + v * P2, 31) * P1;
}

// The low half of XXH64 with seed 0.
function checksum(p: usize, end: usize): u32 {
  const n = <u64>(end - p);
  let h: u64;
  if (n >= 32) {
    let a: u64 = P1 + P2;
    let b: u64 = P2;
    let c: u64 = 0;
    let d: u64 = 0 - P1;
    do {
      a = mix(a, load<u64>(p));
      b = mix(b, load<u64>(p, 8));
      c = mix(c, load<u64>(p, 16));
      d = mix(d, load<u64>(p, 24));
      p += 32;
    } while (end - p >= 32);
    h = rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18);
    h = (h ^ mix(0, a)) * P1 + P4;
    h = (h ^ mix(0, b)) * P1 + P4;
    h = (h ^ mix(0, c)) * P1 + P4;
    h = (h ^ mix(0, d)) * P1 + P4;
  } else {
    h = P5;
  }
  h += n;
  while (end - p >= 8) {
    h = rotl(h ^ mix(0, load<u64>(p)), 27) * P1 + P4;
    p += 8;
  }
  if (end - p >= 4) {
    h = rotl(h ^ (<u64>load<u32>(p) * P1), 23) * P2 + P3;
    p += 4;
  }
  while (p < end) h = rotl(h ^ (<u64>load<u8>(p++) * P5), 11) * P1;
  h = (h ^ (h >> 33)) * P2;
  h = (h ^ (h >> 29)) * P3;
  return <u32>(h ^ (h >> 32));
}

export function decode(src: usize, srcLen: i32, dst: usize, dstMax: i32): i32 {
  let p = src;
  const end = src + srcLen;
  let out = dst;
  const limit = dst + dstMax;
  while (out < limit) {
    if (end - p < 4) return OUT_OF_INPUT;
    const magic = load<u32>(p);
    if ((magic & 0xfffffff0) == 0x184d2a50) {
      if (end - p < 8) return OUT_OF_INPUT;
      const n = load<u32>(p, 4);
      p += 8;
      if (n > <u32>(end - p)) return OUT_OF_INPUT;
      p += n;
      continue;
    }
    if (magic != 0xfd2fb528) return NO_FRAME;

    // Frame header.
    if (end - p < 6) return OUT_OF_INPUT;
    const flags = <i32>load<u8>(p, 4);
    if (flags & 8) return BAD_DATA;
    p += 5;
    const single = (flags & 32) != 0;
    const idBytes = flags & 3 ? 1 << ((flags & 3) - 1) : 0;
    const sizeBytes = flags >> 6 ? 1 << (flags >> 6) : <i32>single;
    if (<i32>(end - p) < <i32>!single + idBytes + sizeBytes) return OUT_OF_INPUT;
    if (!single) {
      const w = <i32>load<u8>(p++);
      const base = <u64>1 << (10 + (w >> 3));
      window = base + (base >> 3) * <u64>(w & 7);
    }
    let id = 0;
    for (let i = 0; i < idBytes; i++) id |= <i32>load<u8>(p++);
    let size: u64 = 0;
    for (let i = 0; i < sizeBytes; i++) size |= <u64>load<u8>(p++) << (i << 3);
    if (sizeBytes == 2) size += 256;
    if (id) return NEEDS_DICTIONARY;
    if (single) window = size;
    else if (window > WINDOW_MAX) return WINDOW_TOO_LARGE;
    if (sizeBytes && size > <u64>(limit - out)) return TOO_MUCH;

    const blockMax = <i32>min<u64>(window, BLOCK_MAX);
    frameStart = out;
    rep1 = 1;
    rep2 = 4;
    rep3 = 8;
    haveHuffman = false;
    haveTables = false;
    let last: i32;
    do {
      if (end - p < 3) return OUT_OF_INPUT;
      const header = <i32>load<u16>(p) | (<i32>load<u8>(p, 2) << 16);
      p += 3;
      last = header & 1;
      const type = (header >> 1) & 3;
      const n = header >> 3;
      if (n > blockMax || type == 3) return BAD_DATA;
      if (type == 1) {
        if (p >= end) return OUT_OF_INPUT;
        if (<usize>n > limit - out) return TOO_MUCH;
        memory.fill(out, load<u8>(p++), n);
        out += n;
        continue;
      }
      if (<usize>n > end - p) return OUT_OF_INPUT;
      if (type == 0) {
        if (<usize>n > limit - out) return TOO_MUCH;
        memory.copy(out, p, n);
        out += n;
      } else {
        const r = block(p, p + n, out, limit, blockMax);
        if (r < 0) return r;
        out += r;
      }
      p += n;
    } while (!last);
    if (sizeBytes && <u64>(out - frameStart) != size) return BAD_DATA;
    if (flags & 4) {
      if (end - p < 4) return OUT_OF_INPUT;
      if (load<u32>(p) != checksum(frameStart, out)) return BAD_CHECKSUM;
      p += 4;
    }
  }
  return <i32>(out - dst);
}
