// What decode() answers instead of a number of bytes. What its caller makes of that is not known here.

export const BAD_DATA: i32 = -1;
export const OUT_OF_INPUT: i32 = -2;
