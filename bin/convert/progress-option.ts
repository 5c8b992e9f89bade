/**
 * The option --progress, of which the value may stand behind it as a word of its own, or be left out.
 *
 * Knows words, and no other option. Invariant: a word that may be the name of a file is taken for a value only if it is `bar` or `json`.
 */

/** What the option may be given. */
export const PROGRESS_FORMATS = ['bar', 'json'] as const

type Format = (typeof PROGRESS_FORMATS)[number]

/** How progress is shown; undefined: a bar, if standard error is a terminal. */
export type ProgressFormat = Format | 'none' | undefined

const isFormat = (word: string | undefined): word is Format => PROGRESS_FORMATS.some((format) => format === word)

/**
 * What the words say about progress, of which the last one counts; and the same words, for a parser to which the option always
 * has a value.
 *
 * @param given The command line without interpreter and script.
 */
export function readProgress(given: readonly string[]): { words: string[]; format: ProgressFormat } {
  const end = given.indexOf('--') >>> 0
  const words: string[] = []
  let format: ProgressFormat
  for (let i = 0; i < given.length; i++) {
    const word = given[i]!
    const value = word.startsWith('--progress=') ? word.slice('--progress='.length) : undefined
    if (i < end && word === '--no-progress') {
      // Where it stands counts as well: no other option may take it for its value.
      words.push('--progress=bar')
      format = 'none'
    } else if (i < end && word === '--progress') {
      const next = given[i + 1]
      format = isFormat(next) ? next : 'bar'
      words.push(`--progress=${format}`)
      i += format === next ? 1 : 0
    } else {
      words.push(word)
      if (i < end && isFormat(value)) {
        format = value
      }
    }
  }
  return { words, format }
}
