/**
 * JSON for whoever may look at it on a terminal.
 *
 * Invariant: what would steer a terminal, end a line or turn the direction of text is escaped, as names in it are somebody else's.
 */

/** The same JSON, all of it letters, numbers and signs, but for the newlines between members. */
export const printableJson = (json: string): string =>
  json.replace(/[^\n\P{C}]|[\p{Zl}\p{Zp}]/gu, (character) =>
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  )
