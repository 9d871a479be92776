/** @file
  The runtime services that this guest does not have: variables, time, counter,
  capsules. UEFI wants all of them to be there; these say that there is nothing.

  Nothing lasts from one start of such a guest to the next, so variables would
  only be something else to attack; the kernel reads the clock itself. It is
  told what to leave alone by the table of supported runtime services.

  SPDX-FileCopyrightText: The sev-artifacts authors
  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include <Uefi.h>

#include <Guid/RtPropertiesTable.h>
#include <Library/UefiBootServicesTableLib.h>
#include <Library/UefiRuntimeServicesTableLib.h>
#include <Protocol/Capsule.h>
#include <Protocol/MonotonicCounter.h>
#include <Protocol/RealTimeClock.h>
#include <Protocol/Variable.h>
#include <Protocol/VariableWrite.h>

STATIC
EFI_STATUS
EFIAPI
GetVariable (
  IN     CHAR16    *Name,
  IN     EFI_GUID  *Vendor,
  OUT    UINT32    *Attributes  OPTIONAL,
  IN OUT UINTN     *DataSize,
  OUT    VOID      *Data        OPTIONAL
  )
{
  return EFI_NOT_FOUND;
}

STATIC
EFI_STATUS
EFIAPI
GetNextVariableName (
  IN OUT UINTN     *NameSize,
  IN OUT CHAR16    *Name,
  IN OUT EFI_GUID  *Vendor
  )
{
  return EFI_NOT_FOUND;
}

STATIC
EFI_STATUS
EFIAPI
SetVariable (
  IN CHAR16    *Name,
  IN EFI_GUID  *Vendor,
  IN UINT32    Attributes,
  IN UINTN     DataSize,
  IN VOID      *Data
  )
{
  return EFI_UNSUPPORTED;
}

STATIC
EFI_STATUS
EFIAPI
QueryVariableInfo (
  IN  UINT32  Attributes,
  OUT UINT64  *MaximumStorage,
  OUT UINT64  *RemainingStorage,
  OUT UINT64  *MaximumVariable
  )
{
  return EFI_UNSUPPORTED;
}

/**
  One moment for all times: QemuKernelLoaderFsDxe, the only one who asks, wants
  a date for its files. The kernel is told that there is no clock.
**/
STATIC
EFI_STATUS
EFIAPI
GetTime (
  OUT EFI_TIME               *Time,
  OUT EFI_TIME_CAPABILITIES  *Capabilities  OPTIONAL
  )
{
  Time->Year       = 2025;
  Time->Month      = 1;
  Time->Day        = 1;
  Time->Hour       = 0;
  Time->Minute     = 0;
  Time->Second     = 0;
  Time->Pad1       = 0;
  Time->Nanosecond = 0;
  Time->TimeZone   = 0;
  Time->Daylight   = 0;
  Time->Pad2       = 0;
  return EFI_SUCCESS;
}

STATIC
EFI_STATUS
EFIAPI
SetTime (
  IN EFI_TIME  *Time
  )
{
  return EFI_UNSUPPORTED;
}

STATIC
EFI_STATUS
EFIAPI
GetWakeupTime (
  OUT BOOLEAN   *Enabled,
  OUT BOOLEAN   *Pending,
  OUT EFI_TIME  *Time
  )
{
  return EFI_UNSUPPORTED;
}

STATIC
EFI_STATUS
EFIAPI
SetWakeupTime (
  IN BOOLEAN   Enable,
  IN EFI_TIME  *Time  OPTIONAL
  )
{
  return EFI_UNSUPPORTED;
}

STATIC
EFI_STATUS
EFIAPI
GetNextMonotonicCount (
  OUT UINT64  *Count
  )
{
  return EFI_UNSUPPORTED;
}

STATIC
EFI_STATUS
EFIAPI
GetNextHighMonotonicCount (
  OUT UINT32  *HighCount
  )
{
  return EFI_UNSUPPORTED;
}

STATIC
EFI_STATUS
EFIAPI
UpdateCapsule (
  IN EFI_CAPSULE_HEADER    **Capsules,
  IN UINTN                 Count,
  IN EFI_PHYSICAL_ADDRESS  ScatterGatherList  OPTIONAL
  )
{
  return EFI_UNSUPPORTED;
}

STATIC
EFI_STATUS
EFIAPI
QueryCapsuleCapabilities (
  IN  EFI_CAPSULE_HEADER  **Capsules,
  IN  UINTN               Count,
  OUT UINT64              *MaximumSize,
  OUT EFI_RESET_TYPE      *ResetType
  )
{
  return EFI_UNSUPPORTED;
}

STATIC EFI_RT_PROPERTIES_TABLE  mSupported = {
  EFI_RT_PROPERTIES_TABLE_VERSION,
  sizeof (EFI_RT_PROPERTIES_TABLE),
  EFI_RT_SUPPORTED_SET_VIRTUAL_ADDRESS_MAP | EFI_RT_SUPPORTED_CONVERT_POINTER | EFI_RT_SUPPORTED_RESET_SYSTEM
};

/**
  Fill the runtime services table, and say so: the DXE core waits for these
  architectural protocols, which have no interface of their own.

  @retval EFI_SUCCESS  The services are there.
  @return              What the DXE core says to an installation that fails.
**/
EFI_STATUS
EFIAPI
AbsentServicesEntryPoint (
  IN EFI_HANDLE        ImageHandle,
  IN EFI_SYSTEM_TABLE  *SystemTable
  )
{
  EFI_HANDLE  Handle;
  EFI_STATUS  Status;

  gRT->GetVariable               = GetVariable;
  gRT->GetNextVariableName       = GetNextVariableName;
  gRT->SetVariable               = SetVariable;
  gRT->QueryVariableInfo         = QueryVariableInfo;
  gRT->GetTime                   = GetTime;
  gRT->SetTime                   = SetTime;
  gRT->GetWakeupTime             = GetWakeupTime;
  gRT->SetWakeupTime             = SetWakeupTime;
  gRT->GetNextHighMonotonicCount = GetNextHighMonotonicCount;
  gRT->UpdateCapsule             = UpdateCapsule;
  gRT->QueryCapsuleCapabilities  = QueryCapsuleCapabilities;
  gBS->GetNextMonotonicCount     = GetNextMonotonicCount;

  Status = gBS->InstallConfigurationTable (&gEfiRtPropertiesTableGuid, &mSupported);
  if (EFI_ERROR (Status)) {
    return Status;
  }

  Handle = NULL;
  return gBS->InstallMultipleProtocolInterfaces (
                &Handle,
                &gEfiVariableArchProtocolGuid,
                NULL,
                &gEfiVariableWriteArchProtocolGuid,
                NULL,
                &gEfiRealTimeClockArchProtocolGuid,
                NULL,
                &gEfiMonotonicCounterArchProtocolGuid,
                NULL,
                &gEfiCapsuleArchProtocolGuid,
                NULL,
                NULL
                );
}
