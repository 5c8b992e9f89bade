// Where in memory this decoder keeps what it works with: from 0x8000 up to 0x2ffff. Below that are the tables of inflate, which
// may be in the same memory, and sources and targets begin above it. What the tables mean is told where they are made.
//
// What the compiler lays down itself (memory.data) begins at 0x8000: scripts/build-wasm.js tells it so.

export const HUF_BITS: usize = 0x9000; // 2048 u8
export const HUF_SYMBOLS: usize = 0x9800; // 2048 u8
export const LL_TABLE: usize = 0xa000; // 512 entries of 8 bytes
export const ML_TABLE: usize = 0xb000; // 512 entries of 8 bytes
export const OF_TABLE: usize = 0xc000; // 256 entries of 16 bytes
export const LL_DEFAULT: usize = 0xd000; // 64 entries
export const ML_DEFAULT: usize = 0xd200; // 64
export const OF_DEFAULT: usize = 0xd400; // 32
export const LL_PROTO: usize = 0xd600; // u32 for 36 codes
export const ML_PROTO: usize = 0xd700; // 53
export const NORM: usize = 0xd800; // i16 for up to 53 symbols
export const NEXT: usize = 0xd900; // u16 for up to 53 symbols
export const CELLS: usize = 0xda00; // symbol of each of 512 states
export const WEIGHTS: usize = 0xdc00; // 256
export const RANKS: usize = 0xdd00; // i32 per weight 0-15
export const WEIGHT_TABLE: usize = 0xde00; // 64 u32
export const TURNS: usize = 0xdf00; // 5 times 16 bytes
export const PATTERNS: usize = 0xe000; // 16 times 16 bytes
export const STEPS: usize = 0xe100; // 16 u8
export const LITERALS: usize = 0xf000; // 128 KiB, and up to 32 bytes that a wide copy may read beyond
