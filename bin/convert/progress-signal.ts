/** The signals that ask a command how far it has come: SIGUSR1, and SIGINFO (Ctrl-T) where the system has it. */
import { constants } from 'node:os'

/**
 * Answers from now on, as long as the process lives. Node's own answer to SIGUSR1, to wait for a debugger, is not given any more.
 *
 * @param answer Called for each signal.
 */
export function onProgressSignal(answer: () => void): void {
  for (const signal of ['SIGUSR1', 'SIGINFO'] as const) {
    // Windows has neither.
    if (signal in constants.signals) {
      process.on(signal, answer)
    }
  }
}
