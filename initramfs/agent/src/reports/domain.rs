// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Whose question a report answers, and the `REPORT_DATA` that says so (docs/attestation.md).

use crate::reports::sha512;

/// Bytes of the caller's own.
pub const MAX_DATA: usize = 64;
/// Its number changes when anything below does.
const LABEL: &str = "sev-artifacts report 1 ";

/// Who asks. "agent" is kept for the agent itself, which asks for nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    Workload,
    Host,
}

impl Domain {
    fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Host => "host",
        }
    }

    /// The `REPORT_DATA` for somebody's bytes. No two pairs of domain and data give the same.
    pub fn report_data(self, data: &[u8]) -> [u8; sha512::BYTES] {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes();
        sha512::digest(&[LABEL.as_bytes(), self.name().as_bytes(), &[0], &length, data].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::sha256::to_hex;

    /// The same as in `tests/sev/test_report_data.py`.
    #[test]
    fn known_bytes() {
        for (domain, expected) in [
            (
                Domain::Workload,
                "667ac2460b8e916ef0c38736c3ba7fb428ad8d5809a33d8410cbe320f510202f\
                 0ec919fa3a7717a0b5a6a6ff567cc5d9cf059ab4af93af116ddd370fa16eac00",
            ),
            (
                Domain::Host,
                "d928c280ef79b178f6219beda9f882708f656bfd56eced1dd230ea55ca4c6b20\
                 89453ebbf92f5418b83d3f463f3ec2f7df75283ed699b98bfe13c400c8d86727",
            ),
        ] {
            assert_eq!(to_hex(&domain.report_data(&[0, 1, 2])), expected);
        }
    }
}
