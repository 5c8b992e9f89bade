/**
 * Encrypted images: every vector and hash that qemu-img makes with aes-xts.
 */
import { luksMatrix } from '../fixtures/luks-matrix.js'

luksMatrix('xts', [128, 192, 256])
