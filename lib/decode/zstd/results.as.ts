// What decode() answers instead of a number of bytes. Which of them a caller tells its user, and how, is not known here.

export const BAD_DATA: i32 = -1;
export const OUT_OF_INPUT: i32 = -2;
export const TOO_MUCH: i32 = -3;
export const BAD_CHECKSUM: i32 = -4;
export const WINDOW_TOO_LARGE: i32 = -5;
export const NEEDS_DICTIONARY: i32 = -6;
export const NO_FRAME: i32 = -7;
