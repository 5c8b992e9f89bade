// The bits of the source that are loaded but not used yet, and where the rest is. What they mean is not known here.
//
// The loop of inflate.as.ts has them in locals of its own for a while, and then puts them back: AssemblyScript, unlike
// TypeScript, lets an importer do that.

export let bits: u64 = 0; // not yet used bits, the next one lowest
export let have: i32 = 0; // how many of them count
export let next: usize = 0;
export let end: usize = 0;

// At least 56 bits, or all there are; bits above `have` are zero at the input's end only.
export function fill(): void {
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
@inline export function drop(n: i32): void {
  bits >>= n;
  have -= n;
}
