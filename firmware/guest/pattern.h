// What a sector holds. The host's twin is tests/guest_pattern.py: change both or neither.
//
//   word 0      sector                      a sector written to the wrong place names itself,
//   word 1      seed << 32 | round          and one that is too old names its age
//   word 2..63  x = x * MULTIPLIER + INCREMENT, from x = mix(mix(word 1) ^ sector)
//
// 64 little-endian 64-bit words, arithmetic modulo 2^64, seed and round of 32 bits.
#ifndef PATTERN_H
#define PATTERN_H
#include "board.h"

enum { SECTOR_SIZE = 512, SECTOR_WORDS = SECTOR_SIZE / 8 };

#define PATTERN_MULTIPLIER 0x5851f42d4c957f2dull
#define PATTERN_INCREMENT 0x14057b7ef767814full

static inline u64 mix(u64 x)  // a bijection whose every output bit depends on every input bit
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static inline u64 pattern_tag(u32 round, u32 seed)
{
    return (u64)seed << 32 | round;
}

static inline u64 pattern_start(u64 sector, u64 tag)
{
    return mix(mix(tag) ^ sector);
}

static inline u64 pattern_next(u64 x)
{
    return x * PATTERN_MULTIPLIER + PATTERN_INCREMENT;
}

#endif
