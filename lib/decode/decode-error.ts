/** Why a compressed cluster could not be decoded; whoever knows where the cluster lies turns it into a `Qcow2Error`. */
export class DecodeError extends Error {
  override readonly name = 'DecodeError'
}
