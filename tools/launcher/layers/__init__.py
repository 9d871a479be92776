# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Image layers in their normal form, so that anybody makes the same EROFS image of the same layer; docs/bundle.md."""
