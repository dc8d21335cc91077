"""The paper's ablations (Table 5) and scaling curves (Figures 3 and 5), trained at a small size."""
