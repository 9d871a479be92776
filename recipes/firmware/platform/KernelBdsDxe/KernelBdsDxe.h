/** @file
  SPDX-FileCopyrightText: The sev-artifacts authors
  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#pragma once

#include <Uefi.h>

/**
  Make the first serial port the console for output. There is none for input.

  @retval EFI_SUCCESS  gST's ConOut and StdErr work.
  @return              What the DXE core says to an installation that fails.
**/
EFI_STATUS
InstallConsole (
  VOID
  );
