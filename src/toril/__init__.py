"""toril"""
