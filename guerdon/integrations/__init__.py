# SPDX-License-Identifier: Apache-2.0
"""Rewards and credit of this library inside other libraries, each in a file named after it. What the other library offers as an
interface is used as it is; where there is none, the smallest method is overridden and a self-check says when it has changed. A
unit that is not ok stays so: it reaches the other library as whatever that one leaves out, never as a 0.
"""
