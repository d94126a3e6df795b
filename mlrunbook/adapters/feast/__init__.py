"""The feature store on Feast. May import base, ports and domain."""
