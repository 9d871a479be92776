// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Attestation reports: who asks, what they get, and the process that asks the processor (docs/attestation.md).

pub mod client;
pub mod domain;
pub mod reporter;
pub mod service;
pub mod sha512;
pub mod tsm;
