// Literals out of Huffman streams, one or four of them, with the table that huffman-tree.as.ts made. Nothing is known here of
// what a block says of them but where they lie and how many literals there are.

import { ahead, opening } from './bits.as';
import { HUF_TABLE, LITERALS } from './places.as';

// @ts-ignore: decorator
@inline function huf(c: u64): u64 {
  return <u64>load<u16>(<usize>(<i32>(c >> 52) & 0xffe), HUF_TABLE);
}

// Decodes the rest of one Huffman stream, from `position` down to exactly `start`.
export function huffmanTail(position: u64, start: usize, out: usize, stop: usize): bool {
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

export function huffman4(p: usize, end: usize, n: i32): bool {
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
