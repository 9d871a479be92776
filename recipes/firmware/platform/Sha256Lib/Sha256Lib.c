/** @file
  SHA-256 (FIPS 180-4), and nothing else of BaseCryptLib: it is all that the
  verifier of kernel, initrd and command line asks for. CryptoPkg's own instance
  compiles OpenSSL for it, and has no use for SHA instructions in that build.

  SPDX-FileCopyrightText: The sev-artifacts authors
  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include <Base.h>

#include <Library/BaseCryptLib.h>
#include <Library/BaseLib.h>
#include <Library/BaseMemoryLib.h>
#include <Register/Intel/Cpuid.h>

#include "Sha256Lib.h"

// Section 4.2.2
CONST UINT32  gSha256Constants[64] = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2
};

// Section 5.3.3
STATIC CONST UINT32  mInitial[8] = {
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
};

#define ROTR(Word, Bits)  (((Word) >> (Bits)) | ((Word) << (32 - (Bits))))

/**
  Hash blocks with what every processor has (section 6.2.2).
**/
STATIC
VOID
Sha256Blocks (
  IN OUT UINT32       State[8],
  IN     CONST UINT8  *Data,
  IN     UINTN        Blocks
  )
{
  UINT32  W[64];
  UINT32  S[8];
  UINT32  T1;
  UINT32  T2;
  UINTN   Index;

  for ( ; Blocks > 0; --Blocks, Data += SHA256_BLOCK) {
    for (Index = 0; Index < 16; ++Index) {
      W[Index] = SwapBytes32 (ReadUnaligned32 ((CONST UINT32 *)(Data + 4 * Index)));
    }

    for ( ; Index < 64; ++Index) {
      T1       = ROTR (W[Index - 2], 17) ^ ROTR (W[Index - 2], 19) ^ (W[Index - 2] >> 10);
      T2       = ROTR (W[Index - 15], 7) ^ ROTR (W[Index - 15], 18) ^ (W[Index - 15] >> 3);
      W[Index] = T1 + W[Index - 7] + T2 + W[Index - 16];
    }

    CopyMem (S, State, sizeof (S));
    for (Index = 0; Index < 64; ++Index) {
      T1   = S[7] + (ROTR (S[4], 6) ^ ROTR (S[4], 11) ^ ROTR (S[4], 25));
      T1  += ((S[4] & S[5]) ^ (~S[4] & S[6])) + gSha256Constants[Index] + W[Index];
      T2   = ROTR (S[0], 2) ^ ROTR (S[0], 13) ^ ROTR (S[0], 22);
      T2  += (S[0] & S[1]) ^ (S[0] & S[2]) ^ (S[1] & S[2]);
      S[7] = S[6];
      S[6] = S[5];
      S[5] = S[4];
      S[4] = S[3] + T1;
      S[3] = S[2];
      S[2] = S[1];
      S[1] = S[0];
      S[0] = T1 + T2;
    }

    for (Index = 0; Index < 8; ++Index) {
      State[Index] += S[Index];
    }
  }
}

/**
  Whether the processor says that it has the instructions of Sha256BlocksNi().

  In an SEV-ES or SNP guest CPUID is answered by the exception handler, from the
  page that the secure processor checked or by the host. A false no is slow, a
  false yes ends in an undefined instruction: neither changes a hash.
**/
STATIC
BOOLEAN
HasShaInstructions (
  VOID
  )
{
  UINT32                                       Highest;
  CPUID_VERSION_INFO_ECX                       Basic;
  CPUID_STRUCTURED_EXTENDED_FEATURE_FLAGS_EBX  Extended;

  AsmCpuid (CPUID_SIGNATURE, &Highest, NULL, NULL, NULL);
  if (Highest < CPUID_STRUCTURED_EXTENDED_FEATURE_FLAGS) {
    return FALSE;
  }

  AsmCpuid (CPUID_VERSION_INFO, NULL, NULL, &Basic.Uint32, NULL);
  AsmCpuidEx (CPUID_STRUCTURED_EXTENDED_FEATURE_FLAGS, 0, NULL, &Extended.Uint32, NULL, NULL);
  return Basic.Bits.SSSE3 && Basic.Bits.SSE4_1 && (Extended.Uint32 & BIT29) != 0;
}

BOOLEAN
EFIAPI
Sha256HashAll (
  IN  CONST VOID  *Data,
  IN  UINTN       DataSize,
  OUT UINT8       *HashValue
  )
{
  UINT32  State[8];
  UINT8   Last[2 * SHA256_BLOCK];
  UINTN   Rest;
  UINTN   Index;
  VOID    (*Hash) (UINT32 *, CONST UINT8 *, UINTN);

  if ((HashValue == NULL) || ((Data == NULL) && (DataSize != 0))) {
    return FALSE;
  }

  Hash = HasShaInstructions () ? Sha256BlocksNi : Sha256Blocks;
  CopyMem (State, mInitial, sizeof (State));
  Hash (State, Data, DataSize / SHA256_BLOCK);

  //
  // Padding, section 5.1.1: a one, zeros, and the length in bits as 64 of them.
  //
  Rest = DataSize % SHA256_BLOCK;
  ZeroMem (Last, sizeof (Last));
  CopyMem (Last, (CONST UINT8 *)Data + DataSize - Rest, Rest);
  Last[Rest] = 0x80;
  Index      = (Rest < SHA256_BLOCK - 8) ? SHA256_BLOCK : 2 * SHA256_BLOCK;
  WriteUnaligned64 ((UINT64 *)(Last + Index - 8), SwapBytes64 (LShiftU64 (DataSize, 3)));
  Hash (State, Last, Index / SHA256_BLOCK);

  for (Index = 0; Index < 8; ++Index) {
    WriteUnaligned32 ((UINT32 *)(HashValue + 4 * Index), SwapBytes32 (State[Index]));
  }

  return TRUE;
}
