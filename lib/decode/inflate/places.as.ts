// Where in memory this decoder keeps what it works with: from 0x400 up to 0x7fff. Above that are the tables of zstd, which
// may be in the same memory, and then sources and targets. What the tables mean is told where they are made.
//
// What the compiler lays down itself (memory.data) begins at 0x400: scripts/build-wasm.js tells it so.

export const LIT_TABLE: usize = 0x1000; // at most 2342 entries for 288 symbols, 11 bits, code words of 15 bits
export const DIST_TABLE: usize = 0x4000; // at most 402 entries for 32 symbols, 8 bits
export const PRE_TABLE: usize = 0x5000; // 128 entries
export const LENS: usize = 0x5800; // 288 + 32 code lengths, and room for one run of 138
export const PRE_LENS: usize = 0x5a00;
export const SORTED: usize = 0x5b00; // u16 per symbol
export const COUNTS: usize = 0x5e00; // u32 per length 0-15
export const OFFSETS: usize = 0x5e40;
export const LIT_PROTO: usize = 0x6000; // an entry without its code length for each of 288 symbols
export const DIST_PROTO: usize = 0x6600; // 32 symbols
export const PRE_PROTO: usize = 0x6700; // 19 symbols
