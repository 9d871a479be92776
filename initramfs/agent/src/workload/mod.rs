// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The workload document: what runs in this guest and what its host may do (docs/workload.md).

pub mod bound;
pub mod calls;
pub mod document;
pub mod engines;
pub mod fields;
pub mod json;
pub mod process;
pub mod sha256;
