"""The contract net: initiator and participant as sans-IO machines. Rules: PROTOCOL-DESIGN 1, 4 to 7, 12; DESIGN 6."""
