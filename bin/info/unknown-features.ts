/** Feature bits that an image sets and this package does not know, with the names that the image itself has for them. */
import type { FeatureName, Qcow2FileInfo } from '../../lib/index.js'

// Incompatible ones that are not known keep an image from being opened at all.
const KNOWN_BITS = { compatible: 1, autoclear: 2 } as const

/** The bits, from the lowest on; one that the image does not name has an empty name. Spec: "Header", "Feature name table". */
export function unknownFeatures({ header, extensions }: Qcow2FileInfo): FeatureName[] {
  const masks = { compatible: header.compatibleFeatures, autoclear: header.autoclearFeatures }
  return (['compatible', 'autoclear'] as const).flatMap((mask) =>
    Array.from({ length: 64 }, (_, bit) => bit)
      .filter((bit) => bit >= KNOWN_BITS[mask] && ((masks[mask] >> BigInt(bit)) & 1n) === 1n)
      .map(
        (bit) =>
          extensions.featureNames.find((entry) => entry.mask === mask && entry.bit === bit) ?? { mask, bit, name: '' },
      ),
  )
}
