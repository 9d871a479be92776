// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The container's root file system: where it comes from, how it is checked and mounted.

pub mod extract;
pub mod folders;
pub mod mapper;
pub mod mounts;
pub mod pax;
pub mod protect;
pub mod rootfs;
pub mod sysctls;
pub mod tar;
pub mod verity;
