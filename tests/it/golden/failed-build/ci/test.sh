#!/bin/sh
echo "ok 1 - cart" | tee "$1"
echo "not ok 2 - checkout" | tee -a "$1"
exit 3
