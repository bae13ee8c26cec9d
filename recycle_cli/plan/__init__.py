"""`recycle plan`: a dry run on a sample of a corpus that forecasts what each cut costs and whether it pays."""
