# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Statements about artifacts, signed: in-toto, DSSE, sigstore bundles, and cosign's simple signing."""
