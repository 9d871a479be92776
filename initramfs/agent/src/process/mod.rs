// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The container and the processes in it.

pub mod command;
pub mod container;
pub mod filter;
pub mod live;
pub mod rules;
pub mod spawn;
