/** @file
  SPDX-FileCopyrightText: The sev-artifacts authors
  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#pragma once

#include <Uefi/UefiBaseType.h>

#define SHA256_BLOCK  64

extern CONST UINT32  gSha256Constants[64];

/**
  Hash blocks with the SHA instructions, which the processor must have.

  @param[in,out] State   The eight words of the hash so far.
  @param[in]     Data    Blocks of SHA256_BLOCK bytes.
  @param[in]     Blocks  How many.
**/
VOID
Sha256BlocksNi (
  IN OUT UINT32       State[8],
  IN     CONST UINT8  *Data,
  IN     UINTN        Blocks
  );
