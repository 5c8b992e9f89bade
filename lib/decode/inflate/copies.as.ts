// Copies within the target. Whether source and target have room for what is read and written is up to the caller.

// Copies what stands dist before `to`, up to `stop` and up to 15 bytes beyond it, in whole words.
// @ts-ignore: decorator
@inline export function copyWide(to: usize, dist: usize, stop: usize): void {
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
