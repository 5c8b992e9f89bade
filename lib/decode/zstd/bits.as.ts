// Bits that are read backwards. A position counts bits: the unread ones are below it. What is loaded is always the 8 bytes
// up to the position, shifted so that the next bit is the highest: at least 57 are good. That may reach up to 8 bytes
// before the start of a bit stream, which is always still inside the frame (magic number, headers), and what it finds
// there does no harm: it is used only until the position is found to be below the start. Finding that is up to whoever
// reads, and so is what the bits mean.

// The next bits of a stream, highest first; 57 are good.
// @ts-ignore: decorator
@inline export function ahead(position: u64): u64 {
  return load<u64>(<usize>((position - 57) >> 3)) << (~(position - 57) & 7);
}

// The highest n < 64 of these bits; n may be 0.
// @ts-ignore: decorator
@inline export function highest(bits: u64, n: u64): u64 {
  return bits >> 1 >> (63 - n);
}

// Where a bit stream [p, end) begins to be read, or 0 if there is none.
// @ts-ignore: decorator
@inline export function opening(p: usize, end: usize): u64 {
  if (end <= p) return 0;
  const last = <i32>load<u8>(end - 1);
  if (last == 0) return 0;
  return (<u64>end << 3) - (clz(last) - 23);
}
