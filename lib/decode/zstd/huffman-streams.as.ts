// Literals out of Huffman streams, one or four of them, with the table that huffman-tree.as.ts made. Nothing is known here of
// what a block says of them but where they lie and how many literals there are.

import { ahead, opening } from './bits.as';
import { HUF_BITS, HUF_SYMBOLS, LITERALS } from './places.as';

// Where in the table the next bits are.
// @ts-ignore: decorator
@inline function index(c: u64): usize {
  return <usize>(c >> 53);
}

// Decodes the rest of one Huffman stream, from `position` down to exactly `start`.
export function huffmanTail(position: u64, start: usize, out: usize, stop: usize): bool {
  const low = <u64>start << 3;
  while (stop - out >= 5) {
    if (position < low) return false;
    let c = ahead(position);
    let used: u64 = 0;
    for (let i = 0; i < 5; i++) {
      const e = index(c);
      const n = <u64>load<u8>(e, HUF_BITS);
      c <<= n;
      used += n;
      store<u8>(out++, load<u8>(e, HUF_SYMBOLS));
    }
    position -= used;
  }
  while (out < stop) {
    if (position < low) return false;
    const e = index(ahead(position));
    position -= load<u8>(e, HUF_BITS);
    store<u8>(out++, load<u8>(e, HUF_SYMBOLS));
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
  const o4Start = LITERALS + 3 * part;
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
  let room = <usize>n > 3 * part ? stop - o4Start : 0;
  for (;;) {
    // A turn uses at most 7 bytes of each stream.
    let turns = <i32>(min(min(p1, p2), min(p3, p4)) - lowest) / 7;
    turns = min(turns, <i32>room / 5);
    if (turns <= 0) break;
    room -= turns * 5;
    do {
      // The streams take turns symbol by symbol, since each symbol of one has to wait for the one before.
      const o2 = o + part;
      const o3 = o2 + part;
      const o4 = o3 + part;
      let e: usize;
      let z: u64;
      e = index(c1); c1 <<= load<u8>(e, HUF_BITS); store<u8>(o, load<u8>(e, HUF_SYMBOLS));
      e = index(c2); c2 <<= load<u8>(e, HUF_BITS); store<u8>(o2, load<u8>(e, HUF_SYMBOLS));
      e = index(c3); c3 <<= load<u8>(e, HUF_BITS); store<u8>(o3, load<u8>(e, HUF_SYMBOLS));
      e = index(c4); c4 <<= load<u8>(e, HUF_BITS); store<u8>(o4, load<u8>(e, HUF_SYMBOLS));
      e = index(c1); c1 <<= load<u8>(e, HUF_BITS); store<u8>(o, load<u8>(e, HUF_SYMBOLS), 1);
      e = index(c2); c2 <<= load<u8>(e, HUF_BITS); store<u8>(o2, load<u8>(e, HUF_SYMBOLS), 1);
      e = index(c3); c3 <<= load<u8>(e, HUF_BITS); store<u8>(o3, load<u8>(e, HUF_SYMBOLS), 1);
      e = index(c4); c4 <<= load<u8>(e, HUF_BITS); store<u8>(o4, load<u8>(e, HUF_SYMBOLS), 1);
      e = index(c1); c1 <<= load<u8>(e, HUF_BITS); store<u8>(o, load<u8>(e, HUF_SYMBOLS), 2);
      e = index(c2); c2 <<= load<u8>(e, HUF_BITS); store<u8>(o2, load<u8>(e, HUF_SYMBOLS), 2);
      e = index(c3); c3 <<= load<u8>(e, HUF_BITS); store<u8>(o3, load<u8>(e, HUF_SYMBOLS), 2);
      e = index(c4); c4 <<= load<u8>(e, HUF_BITS); store<u8>(o4, load<u8>(e, HUF_SYMBOLS), 2);
      e = index(c1); c1 <<= load<u8>(e, HUF_BITS); store<u8>(o, load<u8>(e, HUF_SYMBOLS), 3);
      e = index(c2); c2 <<= load<u8>(e, HUF_BITS); store<u8>(o2, load<u8>(e, HUF_SYMBOLS), 3);
      e = index(c3); c3 <<= load<u8>(e, HUF_BITS); store<u8>(o3, load<u8>(e, HUF_SYMBOLS), 3);
      e = index(c4); c4 <<= load<u8>(e, HUF_BITS); store<u8>(o4, load<u8>(e, HUF_SYMBOLS), 3);
      e = index(c1); c1 <<= load<u8>(e, HUF_BITS); store<u8>(o, load<u8>(e, HUF_SYMBOLS), 4);
      e = index(c2); c2 <<= load<u8>(e, HUF_BITS); store<u8>(o2, load<u8>(e, HUF_SYMBOLS), 4);
      e = index(c3); c3 <<= load<u8>(e, HUF_BITS); store<u8>(o3, load<u8>(e, HUF_SYMBOLS), 4);
      e = index(c4); c4 <<= load<u8>(e, HUF_BITS); store<u8>(o4, load<u8>(e, HUF_SYMBOLS), 4);
      z = ctz(c1); p1 -= <usize>(z >> 3); c1 = (load<u64>(p1) | 1) << (z & 7);
      z = ctz(c2); p2 -= <usize>(z >> 3); c2 = (load<u64>(p2) | 1) << (z & 7);
      z = ctz(c3); p3 -= <usize>(z >> 3); c3 = (load<u64>(p3) | 1) << (z & 7);
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
    huffmanTail((<u64>p3 << 3) + 64 - ctz(c3), s3, o3 + done, o4Start) &&
    huffmanTail((<u64>p4 << 3) + 64 - ctz(c4), s4, o4Start + done, stop)
  );
}
