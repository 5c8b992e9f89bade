// Raw deflate (RFC 1951) from one place of linear memory into another. Written in AssemblyScript: this file and those in
// inflate/ are compiled to one WebAssembly module. Its tables lie at fixed places (inflate/places.as.ts), as nothing is ever
// allocated.
//
// decode(src, srcLen, dst, dstMax) reads [src, src+srcLen) and writes [dst, dst+dstMax), never outside.
// It returns the number of bytes written, or BAD_DATA, or OUT_OF_INPUT. As with zlib's Z_FINISH a full output is a
// success even if the stream goes on.
//
// This file knows of blocks and of what is in them; how codes are described, and tables made of them, it leaves to others.

import { bits, drop, end, fill, have, next } from './inflate/bits.as';
import { loadFixed, readTables } from './inflate/codes.as';
import { copyWide } from './inflate/copies.as';
import { END, LINK, LITERAL, SPECIAL } from './inflate/entries.as';
import { DIST_TABLE, LIT_TABLE } from './inflate/places.as';
import { BAD_DATA, OUT_OF_INPUT } from './inflate/results.as';
import { litMask } from './inflate/tables.as';

// @ts-ignore: decorator
@inline function lit(b: u64, mask: i32): u64 {
  return load<u32>(<usize>(<i32>b & mask), LIT_TABLE);
}

export function decode(src: usize, srcLen: i32, dst: usize, dstMax: i32): i32 {
  next = src;
  end = src + srcLen;
  bits = 0;
  have = 0;
  const dstEnd = dst + dstMax;
  let out = dst;
  // A turn of the fast loop refills at most three times (7 bytes on, 8 read), and writes 3 literals, a match of 258
  // and up to 15 bytes beyond it.
  const inFast = srcLen >= 24 ? end - 24 : 0;
  const outFast = dstMax >= 288 ? dstEnd - 288 : 0;

  let last: i32;
  do {
    fill();
    if (have < 3) return out == dstEnd ? dstMax : OUT_OF_INPUT;
    last = <i32>bits & 1;
    const type = (<i32>bits >> 1) & 3;
    drop(3);
    if (type == 0) {
      // Back to the byte after the header; what was read ahead is given back.
      next -= have >> 3;
      bits = 0;
      have = 0;
      if (next + 4 > end) return out == dstEnd ? dstMax : OUT_OF_INPUT;
      const len = <i32>load<u16>(next);
      if (len != (<i32>load<u16>(next + 2) ^ 0xffff)) return BAD_DATA;
      next += 4;
      let n = min<usize>(len, end - next);
      n = min<usize>(n, dstEnd - out);
      memory.copy(out, next, n);
      out += n;
      next += n;
      if (<i32>n < len) {
        return out == dstEnd ? dstMax : OUT_OF_INPUT;
      }
      continue;
    }
    if (type == 3) return BAD_DATA;
    if (type == 1) {
      loadFixed();
    } else {
      const r = readTables();
      if (r == OUT_OF_INPUT) return out == dstEnd ? dstMax : r;
      if (r < 0) return r;
    }

    let done = false;

    if (next < inFast && out < outFast) {
      // Here the bits stand two places higher, above two that mean nothing, so that masking them gives an offset into
      // a table of 4-byte entries; bc counts those two as well.
      if (have > 56) {
        have -= 8;
        next--;
      }
      let bb = bits << 2;
      let bc = <u64>have + 2;
      let at = next;
      const mask = litMask;
      bb |= load<u64>(at) << bc;
      at += 7 - ((<usize>bc >> 3) & 7);
      bc |= 56;
      let e = lit(bb, mask);
      do {
        let saved = bb;
        bb >>= e;
        bc -= e;
        if (e >= <u64>LITERAL) {
          store<u8>(out, <u32>e >> 16);
          out++;
          e = lit(bb, mask);
          saved = bb;
          bb >>= e;
          bc -= e;
          if (e >= <u64>LITERAL) {
            store<u8>(out, <u32>e >> 16);
            out++;
            e = lit(bb, mask);
            saved = bb;
            bb >>= e;
            bc -= e;
            if (e >= <u64>LITERAL) {
              store<u8>(out, <u32>e >> 16);
              out++;
              e = lit(bb, mask);
              if (e >= <u64>LITERAL) {
                store<u8>(out, <u32>e >> 16);
                out++;
                bb >>= e;
                bc -= e;
              }
              bb |= load<u64>(at) << bc;
              at += 7 - ((<usize>bc >> 3) & 7);
              bc |= 56;
              e = lit(bb, mask);
              continue;
            }
          }
        }
        if (<i32>e & SPECIAL) {
          if (<i32>e & LINK) {
            const width = (<i32>e >> 8) & 15;
            const index = ((<i32>e >> 16) & 0x7fff) + ((<i32>bb >> 2) & ((1 << width) - 1));
            e = load<u32>(<usize>index << 2, LIT_TABLE);
            saved = bb;
            bb >>= e;
            bc -= e;
            if (e >= <u64>LITERAL) {
              store<u8>(out, <u32>e >> 16);
              out++;
              e = lit(bb, mask);
              if (e >= <u64>LITERAL) {
                store<u8>(out, <u32>e >> 16);
                out++;
                bb >>= e;
                bc -= e;
              }
              bb |= load<u64>(at) << bc;
              at += 7 - ((<usize>bc >> 3) & 7);
              bc |= 56;
              e = lit(bb, mask);
              continue;
            }
          }
          if (<i32>e & SPECIAL) {
            if (!(<i32>e & END)) return BAD_DATA;
            done = true;
            break;
          }
        }
        const len: i32 = (<i32>e >> 16) + <i32>((saved & ((<u64>4 << e) - 1)) >> <u64>((<i32>e >> 8) + 2));
        // Seldom are too few bits left for a distance.
        if ((<i32>bc & 63) < 30) {
          bb |= load<u64>(at) << bc;
          at += 7 - ((<usize>bc >> 3) & 7);
          bc |= 56;
        }
        e = load<u32>(<usize>bb & 0x3fc, DIST_TABLE);
        if (<i32>e & SPECIAL) {
          if (!(<i32>e & LINK)) return BAD_DATA;
          bb >>= e;
          bc -= e;
          const width = (<i32>e >> 8) & 15;
          const index = ((<i32>e >> 16) & 0x7fff) + ((<i32>bb >> 2) & ((1 << width) - 1));
          e = load<u32>(<usize>index << 2, DIST_TABLE);
          if (<i32>e & SPECIAL) return BAD_DATA;
        }
        saved = bb;
        bb >>= e;
        bc -= e;
        const dist: usize = (<i32>e >> 16) + <i32>((saved & ((<u64>4 << e) - 1)) >> <u64>((<i32>e >> 8) + 2));
        if (dist > out - dst) return BAD_DATA;
        bb |= load<u64>(at) << bc;
        at += 7 - ((<usize>bc >> 3) & 7);
        bc |= 56;
        e = lit(bb, mask);

        copyWide(out, dist, out + len);
        out += len;
      } while (at < inFast && out < outFast);
      bits = bb >> 2;
      have = (<i32>bc & 63) - 2;
      next = at;
    }

    while (!done) {
      fill();
      let e = load<i32>(<usize>((<i32>bits << 2) & litMask), LIT_TABLE);
      let n = 0;
      if (e < LITERAL && (e & (SPECIAL | LINK)) == (SPECIAL | LINK)) {
        n = e & 63;
        const width = (e >> 8) & 15;
        const index = ((e >> 16) & 0x7fff) + (<i32>(bits >> n) & ((1 << width) - 1));
        e = load<i32>(<usize>index << 2, LIT_TABLE);
      }
      n += e & 63;
      if (n > have) return out == dstEnd ? dstMax : OUT_OF_INPUT;
      if (e >= LITERAL) {
        if (out == dstEnd) return dstMax;
        store<u8>(out++, e >> 16);
        drop(n);
        continue;
      }
      if (e & SPECIAL) {
        if (!(e & END)) return BAD_DATA;
        drop(n);
        break;
      }
      let extra = (e & 63) - ((e >> 8) & 31);
      const len = (e >> 16) + (<i32>(bits >> (n - extra)) & ((1 << extra) - 1));
      drop(n);
      e = load<i32>((<usize>(<i32>bits & 0xff) << 2), DIST_TABLE);
      n = 0;
      if ((e & (SPECIAL | LINK)) == (SPECIAL | LINK)) {
        n = e & 63;
        const width = (e >> 8) & 15;
        const index = ((e >> 16) & 0x7fff) + (<i32>(bits >> n) & ((1 << width) - 1));
        e = load<i32>(<usize>index << 2, DIST_TABLE);
      }
      if (e & SPECIAL) {
        n += e & 63;
        if (n > have) return out == dstEnd ? dstMax : OUT_OF_INPUT;
        return BAD_DATA;
      }
      n += e & 63;
      if (n > have) return out == dstEnd ? dstMax : OUT_OF_INPUT;
      extra = (e & 63) - ((e >> 8) & 31);
      const dist: usize = (e >> 16) + (<i32>(bits >> (n - extra)) & ((1 << extra) - 1));
      drop(n);
      if (out == dstEnd) return dstMax;
      if (dist > out - dst) return BAD_DATA;
      const room = <i32>(dstEnd - out);
      if (len + 16 <= room) {
        copyWide(out, dist, out + len);
        out += len;
        continue;
      }
      const stop = out + min(len, room);
      do {
        store<u8>(out, load<u8>(out - dist));
      } while (++out < stop);
      if (len > room) return dstMax;
    }
  } while (!last);
  return <i32>(out - dst);
}
