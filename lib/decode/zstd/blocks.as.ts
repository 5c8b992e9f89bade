// A compressed block: its literals, the tables of its sequences, its sequences, and what literals are left after them. Of the
// frame around it only how much a block may hold is known here, and where the frame's own output and its window begin.

import { literalsEnd, readLiterals } from './literals.as';
import { LITERALS } from './places.as';
import { BAD_DATA, TOO_MUCH } from './results.as';
import { keepTables, LL, ML, OF, readTable } from './sequence-tables.as';
import { literalsUsed, sequences, SPILL } from './sequences.as';

// Decodes a compressed block [p, end) to [out, ...); returns the number of bytes, or a negative code.
// `limit` is where the output ends; a match may reach back to `origin`, and `far` bytes at most.
export function block(p: usize, end: usize, out: usize, limit: usize, blockMax: i32, origin: usize, far: u32): i32 {
  if (end - p < 2) return BAD_DATA;
  const outStart = out;
  const blockEnd = out + blockMax;
  let litFrom: usize = LITERALS;
  const used = readLiterals(p, end, blockMax);
  if (used < 0) return used;
  p += used;
  const litEnd = literalsEnd;

  if (p >= end) return BAD_DATA;
  let count = <i32>load<u8>(p++);
  if (count >= 128) {
    if (count < 255) {
      if (p >= end) return BAD_DATA;
      count = ((count - 128) << 8) + <i32>load<u8>(p++);
    } else {
      if (end - p < 2) return BAD_DATA;
      count = <i32>load<u16>(p) + 0x7f00;
      p += 2;
    }
  }
  if (count == 0) {
    if (p != end) return BAD_DATA;
  } else {
    if (p >= end) return BAD_DATA;
    const modes = <i32>load<u8>(p++);
    if (modes & 3) return BAD_DATA;
    let n = readTable(modes >> 6, p, end, LL);
    if (n < 0) return n;
    p += n;
    n = readTable((modes >> 4) & 3, p, end, OF);
    if (n < 0) return n;
    p += n;
    n = readTable((modes >> 2) & 3, p, end, ML);
    if (n < 0) return n;
    p += n;
    keepTables();

    const hard = min(limit, blockEnd);
    const r = sequences(p, end, count, out, hard, min(limit - SPILL, hard), origin, far);
    if (r < 0) return r == TOO_MUCH && limit > blockEnd ? BAD_DATA : r;
    out += r;
    litFrom = literalsUsed;
    if (litFrom > litEnd) return BAD_DATA;
  }

  const rest = litEnd - litFrom;
  if (rest > limit - out) return TOO_MUCH;
  if (out + rest > blockEnd) return BAD_DATA;
  memory.copy(out, litFrom, rest);
  return <i32>(out + rest - outStart);
}
