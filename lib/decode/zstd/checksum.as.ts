// The checksum that may follow a frame's content: the low half of XXH64. Of frames nothing is known here.

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
export function checksum(p: usize, end: usize): u32 {
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
