/** @file
  A console that only writes: the kernel's EFI stub calls it without asking
  whether there is one, and what it says when it fails is worth reading.

  Bytes go to the port as they are. A port that is not there takes them, too:
  what is read from it says that it is ready.

  SPDX-FileCopyrightText: The sev-artifacts authors
  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include <Library/SerialPortLib.h>
#include <Library/UefiBootServicesTableLib.h>
#include <Protocol/SimpleTextOut.h>

#include "KernelBdsDxe.h"

STATIC
EFI_STATUS
EFIAPI
Reset (
  IN EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  *This,
  IN BOOLEAN                          Extended
  )
{
  return EFI_SUCCESS;
}

STATIC
EFI_STATUS
EFIAPI
OutputString (
  IN EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  *This,
  IN CHAR16                           *String
  )
{
  UINT8  Byte;

  for ( ; *String != L'\0'; ++String) {
    Byte = (*String < 0x80) ? (UINT8)*String : '?';
    SerialPortWrite (&Byte, 1);
  }

  return EFI_SUCCESS;
}

STATIC
EFI_STATUS
EFIAPI
TestString (
  IN EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  *This,
  IN CHAR16                           *String
  )
{
  return EFI_SUCCESS;
}

STATIC
EFI_STATUS
EFIAPI
QueryMode (
  IN  EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  *This,
  IN  UINTN                            Number,
  OUT UINTN                            *Columns,
  OUT UINTN                            *Rows
  )
{
  if (Number != 0) {
    return EFI_UNSUPPORTED;
  }

  *Columns = 80;
  *Rows    = 25;
  return EFI_SUCCESS;
}

STATIC
EFI_STATUS
EFIAPI
SetNumber (
  IN EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  *This,
  IN UINTN                            Number
  )
{
  return (Number == 0) ? EFI_SUCCESS : EFI_UNSUPPORTED;
}

STATIC
EFI_STATUS
EFIAPI
SetAttribute (
  IN EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  *This,
  IN UINTN                            Attribute
  )
{
  return EFI_SUCCESS;
}

STATIC
EFI_STATUS
EFIAPI
ClearScreen (
  IN EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  *This
  )
{
  return EFI_SUCCESS;
}

STATIC
EFI_STATUS
EFIAPI
SetCursorPosition (
  IN EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  *This,
  IN UINTN                            Column,
  IN UINTN                            Row
  )
{
  return EFI_UNSUPPORTED;
}

STATIC
EFI_STATUS
EFIAPI
EnableCursor (
  IN EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  *This,
  IN BOOLEAN                          Visible
  )
{
  return EFI_UNSUPPORTED;
}

// One mode, number 0.
STATIC EFI_SIMPLE_TEXT_OUTPUT_MODE  mMode = { 1, 0, 0, 0, 0, FALSE };

STATIC EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL  mConsole = {
  Reset,
  OutputString,
  TestString,
  QueryMode,
  SetNumber,
  SetAttribute,
  ClearScreen,
  SetCursorPosition,
  EnableCursor,
  &mMode
};

EFI_STATUS
InstallConsole (
  VOID
  )
{
  EFI_HANDLE  Handle;
  EFI_STATUS  Status;

  Handle = NULL;
  Status = gBS->InstallMultipleProtocolInterfaces (&Handle, &gEfiSimpleTextOutProtocolGuid, &mConsole, NULL);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  SerialPortInitialize ();
  gST->ConsoleOutHandle    = Handle;
  gST->ConOut              = &mConsole;
  gST->StandardErrorHandle = Handle;
  gST->StdErr              = &mConsole;
  return EFI_SUCCESS;
}
