/** @file
  What starts when all drivers are there: the kernel that QEMU hands over, and
  nothing else. No boot options, no menus, no devices to look for one on.

  SPDX-FileCopyrightText: The sev-artifacts authors
  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include "KernelBdsDxe.h"

#include <Library/BaseLib.h>
#include <Library/DebugLib.h>
#include <Library/IoLib.h>
#include <Library/MemoryAllocationLib.h>
#include <Library/QemuLoadImageLib.h>
#include <Library/UefiBootServicesTableLib.h>
#include <Library/UefiLib.h>
#include <OvmfPlatforms.h>
#include <Protocol/Bds.h>

/**
  Name this firmware in the system table, and let its checksum be right again.
**/
STATIC
VOID
FinishSystemTable (
  VOID
  )
{
  gST->FirmwareVendor   = AllocateRuntimeCopyPool (sizeof (L"EDK II"), L"EDK II");
  gST->FirmwareRevision = 0x00010000;
  gST->Hdr.CRC32        = 0;
  gBS->CalculateCrc32 (gST, gST->Hdr.HeaderSize, &gST->Hdr.CRC32);
}

/**
  Start the kernel. Its blobs are verified when the first of them is asked for,
  by the library that is linked into QemuKernelLoaderFsDxe.

  Never returns: a guest that starts something else than what was measured must
  not exist, so there is nothing to go on with.
**/
STATIC
VOID
EFIAPI
BdsEntry (
  IN EFI_BDS_ARCH_PROTOCOL  *This
  )
{
  EFI_HANDLE  Kernel;
  EFI_STATUS  Status;

  Status = InstallConsole ();
  if (!EFI_ERROR (Status)) {
    FinishSystemTable ();

    //
    // No driver of a third party comes from here on: what is to be locked, is.
    //
    EfiEventGroupSignal (&gEfiEndOfDxeEventGroupGuid);

    //
    // ACPI mode, as the tables of a machine without SMM promise.
    //
    IoOr16 (ICH9_PMBASE_VALUE + 4, BIT0);

    Status = QemuLoadKernelImage (&Kernel);
    if (!EFI_ERROR (Status)) {
      EfiSignalEventReadyToBoot ();
      Status = QemuStartKernelImage (&Kernel);
      Print (L"KernelBds: the kernel came back: %r\r\n", Status);
    } else {
      Print (L"KernelBds: no kernel that can be started: %r\r\n", Status);
    }
  }

  CpuDeadLoop ();
}

STATIC EFI_BDS_ARCH_PROTOCOL  mBds = { BdsEntry };

EFI_STATUS
EFIAPI
KernelBdsEntryPoint (
  IN EFI_HANDLE        ImageHandle,
  IN EFI_SYSTEM_TABLE  *SystemTable
  )
{
  EFI_HANDLE  Handle;

  Handle = NULL;
  return gBS->InstallMultipleProtocolInterfaces (&Handle, &gEfiBdsArchProtocolGuid, &mBds, NULL);
}
