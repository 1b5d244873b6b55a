// What a run does, as sector 0 says: an ASCII line, ended by NUL, read by the guest and never written by it.
//
//   e2kdisk-guest mode=check rounds=2 first=2048 sectors=8192 inflight=16 seed=7
//
//   mode=check    (default) each round: write, read back, verify, flush
//   mode=write    each round: write, flush; rounds=0 never ends
//   mode=verify   read only: the area must hold the pattern of round `rounds`
//   rounds=1      how many rounds; for verify: which
//   start=1       number of the first round
//   first=64      first sector of the area; at least one block, since sector 0 is not ours
//   sectors=0     length of the area; 0: all there is, at most 8192
//   inflight=16   requests in flight, 1..64 (a third of the queue size when there are no indirect descriptors)
//   seed=1        of pattern and order
//   size=0        sectors of each request, a power of two up to 64; 0: 1, 8 and 64 mixed
//   wait=ring     look at the used ring; wait=interrupt: only after InterruptStatus has said so
#ifndef OPTIONS_H
#define OPTIONS_H
#include "board.h"

enum mode { MODE_CHECK, MODE_WRITE, MODE_VERIFY };

struct options {
    u32 mode;
    u64 rounds, start, first, sectors, inflight, seed, size;
    u32 wait_for_interrupt;
};

void options_parse(struct options *options, const char *text, u32 limit);
void options_print(const struct options *options);

#endif
