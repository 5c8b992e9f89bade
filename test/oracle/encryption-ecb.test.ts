/**
 * Encrypted images: every vector and hash that qemu-img makes with aes-ecb.
 */
import { luksMatrix } from '../fixtures/luks-matrix.js'

// A key of 24 bytes, split into 4000 stripes, is no whole number of sectors: there QEMU ends itself.
luksMatrix('ecb', [128, 256])
