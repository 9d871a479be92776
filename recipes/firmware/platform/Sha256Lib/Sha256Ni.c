/** @file
  SHA-256 with the processor's SHA instructions (AMD64 Architecture Programmer's
  Manual, volume 4: SHA256RNDS2, SHA256MSG1, SHA256MSG2).

  The rest of the firmware is compiled without SSE: it keeps nothing in these
  registers, and the handlers of exceptions and interrupts save them.

  SPDX-FileCopyrightText: The sev-artifacts authors
  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "Sha256Lib.h"

typedef int   V4 __attribute__ ((vector_size (16)));
typedef char  V16 __attribute__ ((vector_size (16)));

// Addresses need not be multiples of 16.
typedef V4 __attribute__ ((aligned (1)))  Anywhere;

#define LOAD(Address)         (*(CONST Anywhere *)(Address))
#define STORE(Address, Four)  (*(Anywhere *)(Address) = (Four))

// The order in which SHA256RNDS2 wants the words: A B E F and C D G H, from the highest down.
#define WORDS(Low, High, I, J, K, L)  __builtin_shuffle ((Low), (High), (V4){ I, J, K, L })

__attribute__ ((target ("sse4.1,ssse3,sha")))
VOID
Sha256BlocksNi (
  IN OUT UINT32       State[8],
  IN     CONST UINT8  *Data,
  IN     UINTN        Blocks
  )
{
  STATIC CONST V16  BigEndian = { 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12 };
  V4                Abef;
  V4                Cdgh;
  V4                AbefBefore;
  V4                CdghBefore;
  V4                W[4];
  V4                Sum;
  UINTN             Group;

  Sum  = LOAD (State);
  Cdgh = LOAD (State + 4);
  Abef = WORDS (Sum, Cdgh, 5, 4, 1, 0);
  Cdgh = WORDS (Sum, Cdgh, 7, 6, 3, 2);

  for ( ; Blocks > 0; --Blocks, Data += SHA256_BLOCK) {
    AbefBefore = Abef;
    CdghBefore = Cdgh;

    // Four rounds at a time, W[Group % 4] being their four words of the schedule.
    for (Group = 0; Group < 16; ++Group) {
      if (Group < 4) {
        W[Group] = (V4)__builtin_ia32_pshufb128 ((V16)LOAD (Data + 16 * Group), BigEndian);
      } else {
        // W[t-16] + s0(W[t-15]), + W[t-7], + s1(W[t-2])
        Sum          = __builtin_ia32_sha256msg1 (W[Group % 4], W[(Group + 1) % 4]);
        Sum         += WORDS (W[(Group + 2) % 4], W[(Group + 3) % 4], 1, 2, 3, 4);
        W[Group % 4] = __builtin_ia32_sha256msg2 (Sum, W[(Group + 3) % 4]);
      }

      Sum  = W[Group % 4] + LOAD (gSha256Constants + 4 * Group);
      Cdgh = __builtin_ia32_sha256rnds2 (Cdgh, Abef, Sum);
      Abef = __builtin_ia32_sha256rnds2 (Abef, Cdgh, WORDS (Sum, Sum, 2, 3, 0, 0));
    }

    Abef += AbefBefore;
    Cdgh += CdghBefore;
  }

  STORE (State, WORDS (Abef, Cdgh, 3, 2, 7, 6));
  STORE (State + 4, WORDS (Abef, Cdgh, 1, 0, 5, 4));
}
